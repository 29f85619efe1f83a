"""Messages of the tunnel (proto/strait/v1/tunnel.proto), short to write."""

import uuid

import stubs

pb, _ = stubs.load(stubs.TUNNEL)

# What a new request may send, and what is granted for an answer, where nothing else is said.
CREDIT = 65_536


def fields(pairs) -> list:
    """Header fields from (name, value) pairs."""
    raw = [(n.encode() if isinstance(n, str) else n, v.encode() if isinstance(v, str) else v) for n, v in pairs]
    return [pb.Header(name=name, value=value) for name, value in raw]


def hello(**changes):
    """A Hello that is accepted."""
    usual = {
        "version_min": 1, "version_max": 1, "role": "test", "client_id": "hostile", "connection": 1,
        "initial_credit": CREDIT, "max_piece": CREDIT, "max_requests": 1000, "software": "test",
    }
    return pb.TunnelMessage(protocol_type=pb.CONTROL, hello=pb.Hello(**{**usual, **changes}))


def announcement(services, revision: int = 1):
    """What this side offers: names with path prefixes, or whole services."""
    of = [s if isinstance(s, pb.Service) else pb.Service(name=s, path_prefix=f"/{s}") for s in services]
    return pb.TunnelMessage(
        protocol_type=pb.CONTROL, config_sync=pb.ConfigSync(revision=revision, services=of)
    )


def ping(nonce: int):
    return pb.TunnelMessage(protocol_type=pb.CONTROL, control=pb.Control(ping=pb.Ping(nonce=nonce)))


def pong(nonce: int):
    return pb.TunnelMessage(protocol_type=pb.CONTROL, control=pb.Control(pong=pb.Ping(nonce=nonce)))


def goaway(**content):
    return pb.TunnelMessage(protocol_type=pb.CONTROL, control=pb.Control(goaway=pb.GoAway(**content)))


def credit(no: int, amount: int):
    return pb.TunnelMessage(protocol_type=pb.CONTROL, number=no, credit=pb.Credit(bytes=amount))


def reset(no: int, reason: str = "REASON_CANCELLED"):
    return pb.TunnelMessage(protocol_type=pb.CONTROL, number=no, reset=pb.Reset(reason=reason))


def http(no: int, sequence: int = 0, **content):
    """A chunk of an answer."""
    head = fields(content.pop("headers", ()))
    payload = pb.HttpResponse(headers=head, **content)
    return pb.TunnelMessage(number=no, sequence=sequence, protocol_type=pb.HTTP, http_response=payload)


def answer(no: int, status: int = 200, headers=(), body: bytes = b"", last: bool = True, sequence: int = 0):
    """The first chunk of an answer; all of it, unless `last` is false."""
    return http(
        no, sequence, is_first_chunk=True, is_last_chunk=last, status=status, headers=headers, body=body
    )


def grpc(no: int, sequence: int = 0, pieces=(), metadata=(), trailers=(), **content):
    """A chunk of the answer to a call."""
    payload = pb.GrpcResponse(
        metadata=fields(metadata), trailers=fields(trailers),
        pieces=[piece if isinstance(piece, pb.GrpcPiece) else message(piece) for piece in pieces], **content,
    )
    return pb.TunnelMessage(number=no, sequence=sequence, protocol_type=pb.GRPC, grpc_response=payload)


GRPC_HEAD = {"is_first_chunk": True, "status": 200, "metadata": [("content-type", "application/grpc")]}


def message(data: bytes, length: int | None = None, start: bool = True, end: bool = True):
    """A piece of a gRPC message; a whole one, if nothing else is said."""
    size = len(data) if length is None else length
    return pb.GrpcPiece(data=data, is_message_start=start, is_message_end=end, message_length=size if start else 0)


def ws_answer(no: int, status: int = 101, sequence: int = 0, headers=()):
    payload = pb.WebSocketResponse(status=status, headers=fields(headers))
    return pb.TunnelMessage(number=no, sequence=sequence, protocol_type=pb.WEBSOCKET, ws_response=payload)


def frame(no: int, sequence: int = 1, payload: bytes = b"", opcode: int = 2, asking: bool = False, **content):
    """A whole WebSocket frame of the answering side (of the asking one, if `asking`)."""
    usual = {
        "direction": pb.DIRECTION_REQUEST if asking else pb.DIRECTION_RESPONSE,
        "opcode": opcode, "fin": True, "length": len(payload), "payload": payload,
        "is_first_piece": True, "is_last_piece": True,
    }
    payload = pb.WebSocketFrame(**{**usual, **content})
    return pb.TunnelMessage(number=no, sequence=sequence, protocol_type=pb.WEBSOCKET, ws_frame=payload)


HEAD = {"method": b"GET", "scheme": b"http", "authority": b"visitor.test", "path": b"/own/"}


def request(no: int, sequence: int = 0, headers=(), first: bool = True, last: bool = True, body: bytes = b"", **head):
    """A request of this side for the node's own service. Names of the envelope's fields set
    those, other names the head's."""
    usual = {
        "request_id": str(uuid.uuid4()), "service": "own", "answer_credit": CREDIT, "protocol_type": pb.HTTP
    } if first else {"protocol_type": pb.HTTP}
    of_envelope = {field.name for field in pb.TunnelMessage.DESCRIPTOR.fields}
    envelope = {**usual, **{name: head.pop(name) for name in list(head) if name in of_envelope}}
    content = {**HEAD, **head, "headers": fields(headers)} if first else head
    payload = pb.HttpRequest(is_first_chunk=first, is_last_chunk=last, body=body, **content)
    return pb.TunnelMessage(number=no, sequence=sequence, http_request=payload, **envelope)

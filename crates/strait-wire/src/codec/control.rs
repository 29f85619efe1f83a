//! The messages of the tunnel itself, by way of the generated types: they are rare.

use super::pb::{self, control::Kind, tunnel_message::Payload};
use crate::{
    Announced, Announcement, Frame, GoAway, Hello, Protocol, Reason, Refusal, Reset, Service,
    Settings, StreamNo,
};

/// The message of a frame that is none of a request's.
pub(super) fn message(frame: Frame) -> pb::TunnelMessage {
    match frame {
        Frame::Reset(reset) => about(
            reset.no.0,
            Payload::Reset(pb::Reset {
                reason: reset.reason as i32,
                retry_safe: reset.retry_safe,
                message: reset.message,
            }),
        ),
        Frame::Hello(hello) => about(0, Payload::Hello(to_hello(*hello))),
        Frame::Ping(nonce) => to_control(Kind::Ping(pb::Ping { nonce })),
        Frame::Pong(nonce) => to_control(Kind::Pong(pb::Ping { nonce })),
        Frame::GoAway(goaway) => to_control(Kind::Goaway(pb::GoAway {
            last_number: goaway.last.map(|no| no.0),
            reason: goaway.reason as i32,
            message: goaway.message,
        })),
        Frame::Settings(settings) => to_control(Kind::Settings(pb::Settings {
            initial_credit: settings.initial_credit,
            max_requests: settings.max_requests,
        })),
        Frame::Announce(announcement) => about(
            0,
            Payload::ConfigSync(pb::ConfigSync {
                revision: announcement.revision,
                services: announcement.services.into_iter().map(to_service).collect(),
                ..Default::default()
            }),
        ),
        Frame::Announced(answer) => about(
            0,
            Payload::ConfigSync(pb::ConfigSync {
                revision: answer.revision,
                is_answer: true,
                refused: answer
                    .refused
                    .into_iter()
                    .map(|r| pb::Refusal { service: r.service, message: r.message })
                    .collect(),
                addresses: answer.addresses,
                ..Default::default()
            }),
        ),
        // Frames of requests are written elsewhere; the others are never sent.
        Frame::Stream(_) | Frame::Credit(..) | Frame::Malformed(..) | Frame::Unknown => {
            pb::TunnelMessage::default()
        }
    }
}

fn about(number: u64, payload: Payload) -> pb::TunnelMessage {
    pb::TunnelMessage {
        number,
        protocol_type: pb::ProtocolType::Control as i32,
        payload: Some(payload),
        ..Default::default()
    }
}

fn to_control(kind: Kind) -> pb::TunnelMessage {
    about(0, Payload::Control(pb::Control { kind: Some(kind) }))
}

fn to_hello(hello: Hello) -> pb::Hello {
    pb::Hello {
        version_min: hello.version_min,
        version_max: hello.version_max,
        features: hello.features,
        role: hello.role,
        client_id: hello.client_id,
        instance: hello.instance,
        connection: hello.connection,
        initial_credit: hello.initial_credit,
        max_piece: hello.max_piece,
        max_requests: hello.max_requests,
        software: hello.software,
        tunnel: hello.tunnel,
    }
}

fn to_service(service: Service) -> pb::Service {
    pb::Service {
        name: service.name,
        protocols: service.protocols.into_iter().map(|p| to_protocol(p) as i32).collect(),
        hosts: service.hosts,
        path_prefix: service.path_prefix,
    }
}

fn to_protocol(protocol: Protocol) -> pb::ProtocolType {
    match protocol {
        Protocol::Http => pb::ProtocolType::Http,
        Protocol::Grpc => pb::ProtocolType::Grpc,
        Protocol::WebSocket => pb::ProtocolType::Websocket,
    }
}

/// The frame of a message that is none of a request's.
pub(super) fn frame(message: pb::TunnelMessage) -> Frame {
    match message.payload {
        Some(Payload::Hello(hello)) => Frame::Hello(Box::new(self::hello(hello))),
        Some(Payload::Reset(reset)) => Frame::Reset(Reset {
            no: StreamNo(message.number),
            reason: Reason::from_code(reset.reason),
            retry_safe: reset.retry_safe,
            message: cut(reset.message, 256),
        }),
        Some(Payload::Control(control)) => self::control(control),
        Some(Payload::ConfigSync(sync)) => config(sync),
        _ => Frame::Unknown,
    }
}

fn hello(hello: pb::Hello) -> Hello {
    Hello {
        version_min: hello.version_min,
        version_max: hello.version_max,
        features: hello.features,
        role: cut(hello.role, 32),
        client_id: cut(hello.client_id, 128),
        instance: hello.instance,
        connection: hello.connection,
        initial_credit: hello.initial_credit,
        max_piece: hello.max_piece,
        max_requests: hello.max_requests,
        software: cut(hello.software, 128),
        tunnel: hello.tunnel,
    }
}

fn control(control: pb::Control) -> Frame {
    match control.kind {
        Some(Kind::Ping(ping)) => Frame::Ping(ping.nonce),
        Some(Kind::Pong(ping)) => Frame::Pong(ping.nonce),
        Some(Kind::Goaway(goaway)) => Frame::GoAway(GoAway {
            last: goaway.last_number.map(StreamNo),
            reason: Reason::from_code(goaway.reason),
            message: cut(goaway.message, 256),
        }),
        Some(Kind::Settings(settings)) => Frame::Settings(Settings {
            initial_credit: settings.initial_credit,
            max_requests: settings.max_requests,
        }),
        None => Frame::Unknown,
    }
}

fn config(sync: pb::ConfigSync) -> Frame {
    if sync.is_answer {
        let refusal = |r: pb::Refusal| Refusal {
            service: cut(r.service, NAME),
            message: cut(r.message, 256),
        };
        return Frame::Announced(Announced {
            revision: sync.revision,
            refused: sync.refused.into_iter().map(refusal).collect(),
            addresses: sync.addresses.into_iter().map(|a| cut(a, 256)).collect(),
        });
    }
    Frame::Announce(Announcement {
        revision: sync.revision,
        services: sync.services.into_iter().map(service).collect(),
    })
}

fn service(service: pb::Service) -> Service {
    Service {
        name: cut(service.name, NAME),
        protocols: service.protocols.into_iter().filter_map(protocol).collect(),
        hosts: service.hosts,
        path_prefix: service.path_prefix,
    }
}

fn protocol(number: i32) -> Option<Protocol> {
    match pb::ProtocolType::try_from(number).ok()? {
        pb::ProtocolType::Http => Some(Protocol::Http),
        pb::ProtocolType::Grpc => Some(Protocol::Grpc),
        pb::ProtocolType::Websocket => Some(Protocol::WebSocket),
        pb::ProtocolType::Control | pb::ProtocolType::ProtocolUnspecified => None,
    }
}

/// What is kept of a service's name, in bytes: one more than a name may have, so that a
/// longer one is not taken for another.
pub(super) const NAME: usize = 65;

/// A copy of `text`, cut to at most `limit` bytes at a character's edge.
pub(super) fn cut<T: for<'a> From<&'a str> + Default>(text: impl AsRef<str>, limit: usize) -> T {
    let text = text.as_ref();
    // An empty one need not be made.
    if text.is_empty() { T::default() } else { T::from(&text[..text.floor_char_boundary(limit)]) }
}

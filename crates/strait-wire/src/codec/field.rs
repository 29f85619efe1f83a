//! The field numbers of `tunnel.proto` that the hot path reads and writes itself. The golden
//! files of the tests, which the generated types once wrote, hold them to the contract.

pub(super) mod envelope {
    pub(crate) const CLIENT_ID: u32 = 1;
    pub(crate) const REQUEST_ID: u32 = 2;
    pub(crate) const DIRECTION: u32 = 3;
    pub(crate) const PROTOCOL: u32 = 4;
    pub(crate) const HTTP_REQUEST: u32 = 5;
    pub(crate) const HTTP_RESPONSE: u32 = 6;
    pub(crate) const GRPC_REQUEST: u32 = 7;
    pub(crate) const GRPC_RESPONSE: u32 = 8;
    pub(crate) const WS_REQUEST: u32 = 9;
    pub(crate) const WS_RESPONSE: u32 = 10;
    pub(crate) const WS_FRAME: u32 = 11;
    pub(crate) const CREDIT: u32 = 13;
    pub(crate) const CONFIG_SYNC: u32 = 16;
    pub(crate) const TRACE_ID: u32 = 17;
    pub(crate) const NUMBER: u32 = 18;
    pub(crate) const SEQUENCE: u32 = 19;
    pub(crate) const HOPS: u32 = 20;
    pub(crate) const DEADLINE: u32 = 21;
    pub(crate) const URGENCY: u32 = 22;
    pub(crate) const SERVICE: u32 = 23;
    pub(crate) const ANSWER_CREDIT: u32 = 24;
    pub(crate) const AWAITS_CONTINUE: u32 = 25;
}

pub(super) mod http_request {
    pub(crate) const IS_FIRST: u32 = 1;
    pub(crate) const IS_LAST: u32 = 2;
    pub(crate) const METHOD: u32 = 3;
    pub(crate) const SCHEME: u32 = 4;
    pub(crate) const AUTHORITY: u32 = 5;
    pub(crate) const PATH: u32 = 6;
    pub(crate) const HEADERS: u32 = 7;
    pub(crate) const BODY: u32 = 8;
    pub(crate) const TRAILERS: u32 = 9;
}

pub(super) mod http_response {
    pub(crate) const IS_FIRST: u32 = 1;
    pub(crate) const IS_LAST: u32 = 2;
    pub(crate) const STATUS: u32 = 3;
    pub(crate) const HEADERS: u32 = 4;
    pub(crate) const BODY: u32 = 5;
    pub(crate) const TRAILERS: u32 = 6;
}

pub(super) mod grpc_request {
    pub(crate) const IS_FIRST: u32 = 1;
    pub(crate) const IS_LAST: u32 = 2;
    pub(crate) const SCHEME: u32 = 3;
    pub(crate) const AUTHORITY: u32 = 4;
    pub(crate) const PATH: u32 = 5;
    pub(crate) const HEADERS: u32 = 6;
    pub(crate) const PIECES: u32 = 7;
}

pub(super) mod grpc_response {
    pub(crate) const IS_FIRST: u32 = 1;
    pub(crate) const IS_LAST: u32 = 2;
    pub(crate) const STATUS: u32 = 3;
    pub(crate) const HEADERS: u32 = 4;
    pub(crate) const PIECES: u32 = 5;
    pub(crate) const TRAILERS: u32 = 6;
}

pub(super) mod piece {
    pub(crate) const DATA: u32 = 1;
    pub(crate) const IS_START: u32 = 2;
    pub(crate) const IS_END: u32 = 3;
    pub(crate) const COMPRESSED: u32 = 4;
    pub(crate) const LENGTH: u32 = 5;
}

pub(super) mod ws_request {
    pub(crate) const SCHEME: u32 = 1;
    pub(crate) const AUTHORITY: u32 = 2;
    pub(crate) const PATH: u32 = 3;
    pub(crate) const HEADERS: u32 = 4;
}

pub(super) mod ws_response {
    pub(crate) const STATUS: u32 = 1;
    pub(crate) const HEADERS: u32 = 2;
}

pub(super) mod ws_frame {
    pub(crate) const DIRECTION: u32 = 1;
    pub(crate) const OPCODE: u32 = 2;
    pub(crate) const FIN: u32 = 3;
    pub(crate) const RESERVED: u32 = 4;
    pub(crate) const LENGTH: u32 = 5;
    pub(crate) const PAYLOAD: u32 = 6;
    pub(crate) const IS_FIRST: u32 = 7;
    pub(crate) const IS_LAST: u32 = 8;
    pub(crate) const END: u32 = 9;
}

pub(super) mod header {
    pub(crate) const NAME: u32 = 1;
    pub(crate) const VALUE: u32 = 2;
    /// What stands before their lengths: number and kind.
    pub(crate) const NAME_KEY: u8 = (NAME << 3 | 2) as u8;
    pub(crate) const VALUE_KEY: u8 = (VALUE << 3 | 2) as u8;
}

pub(super) mod credit {
    pub(crate) const BYTES: u32 = 1;
}

//! What decoding allocates is bounded by what arrived, whatever the bytes claim. One test:
//! the counters are of the whole process.

use std::alloc::System;

use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use strait_wire::codec;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated while `bytes` are decoded, all calls together.
fn allocated(bytes: Vec<u8>) -> usize {
    let bytes = Bytes::from(bytes);
    let region = Region::new(ALLOCATOR);
    let frame = codec::decode(bytes);
    let stats = region.change();
    drop(frame);
    stats.bytes_allocated + usize::try_from(stats.bytes_reallocated).unwrap_or(0)
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn decoding_allocates_in_proportion_to_what_arrived() {
    // Lengths that are claimed and not there: of a text, a payload, a list.
    for number in [1u8, 2, 5, 6, 7, 11, 14, 15] {
        let claim = vec![number << 3 | 2, 0xFF, 0xFF, 0xFF, 0xFF, 0x07];
        assert!(allocated(claim) < 4 * 1024, "field {number}");
        let inner = vec![0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x07];
        assert!(allocated(field(number, &inner)) < 4 * 1024, "inside field {number}");
    }
    // A message of one large body is not copied.
    let body = field(5, &field(8, &vec![b'x'; codec::MAX_MESSAGE - 100]));
    assert!(allocated(body) < 4 * 1024);
    // The smallest parts make the most of a message: two bytes each become an entry of a
    // list. This is what the size limit must be multiplied with.
    let headers = field(5, &[0x3A, 0x00].repeat(codec::MAX_MESSAGE / 2 - 8));
    let pieces = field(7, &[0x3A, 0x00].repeat(codec::MAX_MESSAGE / 2 - 8));
    for (what, bytes) in [("headers", headers), ("pieces", pieces)] {
        let (size, used) = (bytes.len(), allocated(bytes));
        println!("{what}: {used} bytes allocated for {size}");
        assert!(used < 160 * size, "{what}: {used} bytes for {size}");
    }
}

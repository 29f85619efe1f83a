use super::*;
use proptest::prelude::*;

const MAX: u64 = 1 << 20;

fn rules(extended: bool) -> Rules {
    Rules::new(extended, MAX, Reason::BadRequest)
}

/// Cuts `wire`, which arrives in pieces of the given sizes.
fn cut(wire: &[u8], sizes: &[usize], from_client: bool) -> Result<Vec<Data>, Fault> {
    let mut cutter = Cutter::new(rules(true), from_client);
    let (mut input, mut pieces, mut at, mut turn) = (BytesMut::new(), Vec::new(), 0, 0);
    while at < wire.len() {
        let n = sizes[turn % sizes.len()].min(wire.len() - at);
        input.extend_from_slice(&wire[at..at + n]);
        while let Some(data) = cutter.next(&mut input)? {
            pieces.push(data);
        }
        at += n;
        turn += 1;
    }
    assert!(input.len() < 14 + 125, "the cutter holds {} bytes back", input.len());
    Ok(pieces)
}

fn write(pieces: Vec<Data>, as_client: bool) -> Result<Vec<u8>, Fault> {
    let mut writer = Writer::new(rules(true), as_client);
    let mut wire = Vec::new();
    for data in pieces {
        let mut out = BytesMut::new();
        let large = writer.put(data, &mut out)?;
        wire.extend_from_slice(&out);
        wire.extend_from_slice(&large.unwrap_or_default());
    }
    Ok(wire)
}

/// Whole frames of the pieces: tag and payload.
fn frames(pieces: &[Data]) -> Vec<(u8, Vec<u8>)> {
    let mut frames: Vec<(u8, Vec<u8>)> = Vec::new();
    for data in pieces {
        if let Some(start) = data.start {
            frames.push((start.tag, Vec::with_capacity(start.length as usize)));
        }
        frames.last_mut().unwrap().1.extend_from_slice(&data.bytes);
    }
    frames
}

fn whole(tag: u8, bytes: &[u8]) -> Data {
    let start = MessageStart { tag, length: bytes.len() as u64 };
    Data { bytes: Bytes::copy_from_slice(bytes), start: Some(start), ends_message: true }
}

fn frame() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let size = prop_oneof![0usize..10, 120usize..130, 65_530usize..65_540, 0usize..20_000];
    let data = (prop_oneof![Just(0x82u8), Just(0x81), Just(0xC1)], size);
    let control = (prop_oneof![Just(0x89u8), Just(0x8A)], 0usize..126);
    prop_oneof![data, control]
        .prop_flat_map(|(tag, size)| (Just(tag), prop::collection::vec(any::<u8>(), size)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_cut_to_the_same_frames(
        sent in prop::collection::vec(frame(), 1..6),
        sizes in prop::collection::vec(1usize..9_000, 1..5),
        as_client in any::<bool>(),
    ) {
        let pieces = sent.iter().map(|(tag, bytes)| whole(*tag, bytes)).collect();
        let wire = write(pieces, as_client).unwrap();
        let pieces = cut(&wire, &sizes, as_client).unwrap();
        prop_assert_eq!(frames(&pieces), sent);
        // And once more, as the pieces came: what a relay does.
        let again = write(pieces, !as_client).unwrap();
        prop_assert_eq!(frames(&cut(&again, &[7], !as_client).unwrap()), sent_of(&wire, as_client));
    }

    #[test]
    fn any_bytes_are_frames_or_a_fault(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        size in 1usize..9,
        from_client in any::<bool>(),
    ) {
        let mut cutter = Cutter::new(rules(false), from_client);
        let mut input = BytesMut::new();
        'all: for piece in bytes.chunks(size) {
            input.extend_from_slice(piece);
            loop {
                match cutter.next(&mut input) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
    }

    #[test]
    fn masking_agrees_with_the_rfc(
        bytes in prop::collection::vec(any::<u8>(), 0..64), mask in any::<[u8; 4]>(), at in 0u64..9,
    ) {
        let mut fast = bytes.clone();
        mask_at(&mut fast, mask, at);
        let slow: Vec<u8> = bytes.iter().enumerate()
            .map(|(i, b)| b ^ mask[((at as usize) + i) % 4]).collect();
        prop_assert_eq!(fast, slow);
    }
}

fn sent_of(wire: &[u8], as_client: bool) -> Vec<(u8, Vec<u8>)> {
    frames(&cut(wire, &[1 << 20], as_client).unwrap())
}

/// The fault of these bytes from a backend, without an extension.
fn fault(wire: &[u8]) -> Option<Reason> {
    let (mut cutter, mut input) = (Cutter::new(rules(false), false), BytesMut::from(wire));
    loop {
        match cutter.next(&mut input) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(fault) => return Some(fault.reason),
        }
    }
}

#[test]
fn broken_frames_are_faults() {
    let bad = Some(Reason::BadRequest);
    assert_eq!(fault(&[0x82, 0x81, 0, 0, 0, 0, 1]), bad, "masked by a server");
    assert_eq!(fault(&[0xC1, 1, b'a']), bad, "reserved bit without extension");
    assert_eq!(fault(&[0x83, 0]), bad, "unknown opcode");
    assert_eq!(fault(&[0x8B, 0]), bad, "unknown control opcode");
    assert_eq!(fault(&[0x09, 0]), bad, "fragmented ping");
    assert_eq!(fault(&[&[0x89, 126, 0, 126][..], &[0; 126]].concat()), bad, "ping over 125");
    assert_eq!(fault(&[0x80, 0]), bad, "continuation of nothing");
    assert_eq!(fault(&[0x01, 0, 0x81, 0]), bad, "message within a message");
    assert_eq!(fault(&[0x82, 126, 0, 5, 0, 0, 0, 0, 0]), bad, "length not minimal");
    assert_eq!(fault(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 5, 0]), bad, "length not minimal");
    assert_eq!(fault(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]), bad, "length of 64 bits");
    assert_eq!(fault(&[0x88, 1, 3]), bad, "half a close code");
    assert_eq!(fault(&[0x88, 0, 0x81, 0]), bad, "frame after close");
    assert_eq!(fault(&[0x88, 2, 0x03, 0xE8]), None);
    assert_eq!(fault(&[0x01, 1, b'a', 0x89, 0, 0x80, 1, b'b']), None);
}

#[test]
fn only_codes_that_mean_something_are_on_the_wire() {
    for code in 0..=u16::MAX {
        let good = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let [high, low] = code.to_be_bytes();
        assert_eq!(fault(&[0x88, 2, high, low]), (!good).then_some(Reason::BadRequest), "{code}");
        // As it comes from a tunnel: whole, or cut by credit.
        let frame = whole(0x88, &[high, low, b'w', b'h', b'y']);
        for at in 1..5 {
            let mut rest = frame.clone();
            let written = write(vec![rest.split_to(at), rest], false);
            assert_eq!(written.is_ok(), good, "{code} cut at {at}");
            assert_eq!(written.ok(), write(vec![frame.clone()], false).ok());
        }
    }
    assert_eq!(fault(&[0x88, 0]), None, "none is needed");
    assert!(write(vec![whole(0x88, b"")], false).is_ok());
}

#[test]
fn a_size_over_the_limit_is_a_fault_before_its_payload() {
    let large = Some(Reason::MessageTooLarge);
    assert_eq!(fault(&[0x82, 127, 0, 0, 0, 0, 0x7F, 0, 0, 0]), large);
    let half = [&[0x02, 127, 0, 0, 0, 0, 0, 8, 0, 0][..], &vec![0; 512 << 10]].concat();
    let rest = [&[0x80, 127, 0, 0, 0, 0, 0, 8, 0, 1][..], &[0]].concat();
    assert_eq!(fault(&half), None);
    assert_eq!(fault(&[half, rest].concat()), large, "the sum of the fragments counts");
}

#[test]
fn pieces_that_make_no_frames_are_faults() {
    let piece = |start: Option<(u8, u64)>, bytes: &'static [u8], ends_message| Data {
        bytes: Bytes::from_static(bytes),
        start: start.map(|(tag, length)| MessageStart { tag, length }),
        ends_message,
    };
    for pieces in [
        vec![piece(None, b"a", true)],
        vec![piece(Some((0x82, 1)), b"ab", true)],
        vec![piece(Some((0x82, 3)), b"ab", true)],
        vec![piece(Some((0x82, 2)), b"ab", false)],
        vec![piece(Some((0x83, 0)), b"", true)],
        vec![piece(Some((0x89, 126)), b"a", false)],
        vec![whole(0x88, b""), whole(0x82, b"x")],
        vec![piece(Some((0x88, 2)), b"\x03", false), whole(0x82, b"x")],
        vec![piece(Some((0x88, 4)), b"\x03", false), piece(None, b"\xE8", true)],
        vec![piece(Some((0x88, 2)), b"\x03", false), piece(None, &[0xE8; 125], false)],
    ] {
        assert!(write(pieces, false).is_err());
    }
}

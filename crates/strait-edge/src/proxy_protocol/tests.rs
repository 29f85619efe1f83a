use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A header of version 2.
fn binary(command: u8, family: u8, addresses: &[u8], fields: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len() + fields.len()).unwrap();
    let mut bytes = BINARY.to_vec();
    bytes.extend([command, family]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(addresses);
    bytes.extend(fields);
    bytes
}

/// Addresses of version 2: from `source` to anywhere.
fn ends(source: SocketAddr) -> (u8, Vec<u8>) {
    let mut bytes = match source.ip() {
        IpAddr::V4(ip) => [&ip.octets()[..], &[9; 4]].concat(),
        IpAddr::V6(ip) => [&ip.octets()[..], &[9; 16]].concat(),
    };
    bytes.extend(source.port().to_be_bytes());
    bytes.extend([1, 187]);
    (if source.is_ipv4() { 0x11 } else { 0x21 }, bytes)
}

fn line(source: SocketAddr) -> Vec<u8> {
    let (family, target) = if source.is_ipv4() { ("TCP4", "9.9.9.9") } else { ("TCP6", "9::9") };
    format!("PROXY {family} {} {target} {} 443\r\n", source.ip(), source.port()).into_bytes()
}

fn source(bytes: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    parse(bytes).map(|header| {
        let header = header.expect("a whole header");
        assert_eq!(header.length, bytes.len());
        header.source
    })
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

/// Fields of version 2, of any types and values.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let field = (any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(kind, value)| {
        [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], &value].concat()
    });
    vec(field, 0..5).prop_map(|fields| fields.concat())
}

/// A header of either version, and whom it names.
fn header() -> impl Strategy<Value = (Vec<u8>, Option<SocketAddr>)> {
    prop_oneof![
        socket().prop_map(|source| (line(source), Some(source))),
        "[ a-zA-Z0-9:.]{0,80}"
            .prop_map(|rest| { (format!("PROXY UNKNOWN {rest}\r\n").into_bytes(), None) }),
        (socket(), fields()).prop_map(|(source, fields)| {
            let (family, ends) = ends(source);
            (binary(0x21, family, &ends, &fields), Some(source))
        }),
        (socket(), fields()).prop_map(|(source, fields)| {
            let (family, ends) = ends(source);
            (binary(0x20, family, &ends, &fields), None)
        }),
        fields().prop_map(|fields| (binary(0x21, 0x00, &[], &fields), None)),
    ]
}

proptest! {
    #[test]
    fn what_proxies_write_is_read_wherever_it_is_cut(
        (bytes, source) in header(), behind in vec(any::<u8>(), 0..80),
    ) {
        for end in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..end]), Ok(None), "{} bytes", end);
        }
        let whole = Header { length: bytes.len(), source };
        prop_assert_eq!(parse(&[bytes, behind].concat()), Ok(Some(whole)));
    }

    #[test]
    fn a_verdict_stands_whatever_follows(
        (mut bytes, _) in header(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        behind in vec(any::<u8>(), 0..80),
    ) {
        *at.get_mut(&mut bytes) = byte;
        bytes.extend(behind);
        let mut verdict = Ok(None);
        for end in 0..=bytes.len() {
            let found = parse(&bytes[..end]);
            if verdict != Ok(None) {
                prop_assert_eq!(&found, &verdict, "{} bytes", end);
            } else if let Ok(Some(header)) = &found {
                prop_assert_eq!(header.length, end);
            }
            verdict = found;
        }
    }

    #[test]
    fn any_bytes_are_judged_before_the_longest_header(
        start in prop_oneof![Just(&b""[..]), Just(TEXT), Just(BINARY), Just(&b"PROXY TCP4 "[..])],
        rest in vec(any::<u8>(), LONGEST_HEADER..LONGEST_HEADER + 1),
    ) {
        let bytes = [start, &rest].concat();
        match parse(&bytes[..LONGEST_HEADER]) {
            Ok(None) => prop_assert!(false, "more is wanted"),
            Ok(Some(header)) => prop_assert!(header.length <= LONGEST_HEADER),
            Err(_) => {}
        }
    }
}

#[test]
fn lines_that_are_none_are_refused() {
    for bad in [
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 1.2.3.4 9.9.9.9 1 2\r\n",
        "PROXY-TCP4 1.2.3.4 9.9.9.9 1 2\r\n",
        "PROXY  TCP4 1.2.3.4 9.9.9.9 1 2\r\n",
        "PROXY TCP5 1.2.3.4 9.9.9.9 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9 1\r\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9 1 2\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9 1 2\r\r\n",
        "PROXY TCP4 1.2.3.4\r9.9.9.9 1 2\r\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9 01 2\r\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 9.9.9.9  2\r\n",
        "PROXY TCP4 1.2.3 9.9.9.9 1 2\r\n",
        "PROXY TCP4 01.2.3.4 9.9.9.9 1 2\r\n",
        "PROXY TCP4 1.2.3.4 9.9.9 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.2.3.4 9.9.9.9 1 2\r\n",
        "PROXY TCP6 [::1] [::2] 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
    ] {
        assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert_eq!(source(b"PROXY UNKNOWN\r\n"), Ok(None));
    assert_eq!(source(b"PROXY TCP4 1.2.3.4 9.9.9.9 0 0\r\n"), Ok(Some(([1, 2, 3, 4], 0).into())));
}

#[test]
fn a_line_ends_within_107_bytes() {
    let whole = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
    assert_eq!(source(whole(107).as_bytes()), Ok(None));
    assert!(parse(whole(108).as_bytes()).is_err());
    assert_eq!(parse(&whole(107).as_bytes()[..106]), Ok(None));
    assert!(parse(&whole(108).as_bytes()[..107]).is_err(), "no more is waited for");
}

#[test]
fn other_families_name_nobody_and_unknown_ones_are_refused() {
    let (four, six, unix) = ([7; 12], [7; 36], [7; 216]);
    for (family, addresses) in
        [(0x00, &[][..]), (0x12, &four), (0x22, &six), (0x31, &unix), (0x32, &unix)]
    {
        assert_eq!(source(&binary(0x21, family, addresses, &[])), Ok(None), "{family:#x}");
    }
    for family in (0..=255).filter(|f| ![0, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32].contains(f)) {
        assert!(parse(&binary(0x21, family, &unix, &[])).is_err(), "{family:#x}");
        // What the proxy says of its own connections is not looked at.
        assert_eq!(source(&binary(0x20, family, &unix, &[])), Ok(None), "{family:#x}");
    }
    for command in (0..=255).filter(|command| ![0x20, 0x21].contains(command)) {
        assert!(parse(&binary(command, 0x11, &four, &[])).is_err(), "{command:#x}");
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for (family, least) in
        [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)]
    {
        for length in 0..least {
            assert!(parse(&binary(0x21, family, &vec![7; length], &[])).is_err(), "{family:#x}");
        }
        assert!(parse(&binary(0x21, family, &vec![7; least], &[])).is_ok(), "{family:#x}");
    }
    for field in [&[1][..], &[1, 0], &[1, 0, 1], &[1, 0, 2, 7], &[1, 255, 255, 7], &[4, 0, 0, 4]] {
        assert!(parse(&binary(0x21, 0x11, &[7; 12], field)).is_err(), "{field:?}");
    }
    let room = LONGEST_HEADER - 16 - 12 - 3;
    let field = |length: usize| {
        [&[4], &u16::try_from(length).unwrap().to_be_bytes()[..], &vec![0; length]].concat()
    };
    assert!(source(&binary(0x21, 0x11, &[7; 12], &field(room))).is_ok());
    let long = binary(0x21, 0x11, &[7; 12], &field(room + 1));
    assert!(parse(&long).is_err() && parse(&long[..16]).is_err(), "no more is waited for");
}

//! Small values and what is allowed in them. Every error says what is allowed.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::secrets::{Pin, TokenDigest};

/// A duration with its unit: `500ms`, `10s`, `5m`, `1h`.
///
/// # Errors
/// What is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| {
        Err(format!(
            "\"{text}\" {why}; write a whole number with ms, s, m or h, like \"500ms\" or \"10s\""
        ))
    };
    let (number, unit) = split(text);
    if text.trim_start().starts_with('-') {
        return wrong("is negative");
    }
    let Ok(number) = number.parse::<u64>() else { return wrong("is not a duration") };
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "" => return wrong("has no unit"),
        _ => return wrong("has an unknown unit"),
    };
    millis.map(Duration::from_millis).map_or_else(|| wrong("is too long"), Ok)
}

/// A size in bytes with its unit: `512B`, `64KiB`, `16MiB`, `1GiB`, also `kB`, `MB`, `GB`.
///
/// # Errors
/// What is allowed.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = |why: &str| {
        Err(format!(
            "\"{text}\" {why}; write a whole number with B, KiB, MiB or GiB, like \"64KiB\""
        ))
    };
    let (number, unit) = split(text);
    if text.trim_start().starts_with('-') {
        return wrong("is negative");
    }
    let Ok(number) = number.parse::<u64>() else { return wrong("is not a size") };
    let factor = match unit {
        "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "" => return wrong("has no unit"),
        _ => return wrong("has an unknown unit"),
    };
    number.checked_mul(factor).map_or_else(|| wrong("is too large"), Ok)
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// The name of an entry, service, token or client.
///
/// # Errors
/// What is allowed.
pub fn parse_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=64).contains(&text.len()) && text.chars().all(fits) && !text.starts_with('.') {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{:?} is not a name; allowed: 1 to 64 letters, digits, '.', '_' and '-', not '.' first",
        clip(text)
    ))
}

/// A pattern of service names: a name in which `*` stands for any text.
pub(super) fn parse_name_pattern(text: &str) -> Result<String, String> {
    let bare = text.replace('*', "x");
    parse_name(&bare).map(|_| text.to_owned()).map_err(|_| {
        format!("{:?} is not a service name or a pattern like \"api-*\" or \"*\"", clip(text))
    })
}

/// A host that a service answers to, in lower case: `example.org` or `*.example.org`.
///
/// # Errors
/// What is allowed.
pub fn parse_host_pattern(text: &str) -> Result<String, String> {
    let allowed = "write a name like \"app.example.org\" or \"*.example.org\", \
                   without scheme, port and path";
    let host = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        (1..=63).contains(&label.len()) && label.chars().all(fits)
    };
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let fits = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.len() <= 253 && host.split('.').all(label),
    };
    if fits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("{:?} is not a host; {allowed}", clip(text)))
    }
}

/// The origin of a page, as browsers send it (RFC 6454 6.2), or `*` for any.
///
/// # Errors
/// What is allowed.
pub fn parse_origin(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let own_port = if text.starts_with("https") { 443 } else { 80 };
    let fits = |text: &str| {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-._:[]".contains(&c);
        let Ok(authority) = text.parse::<http::uri::Authority>() else { return false };
        let no_port = authority.host().len() == text.len();
        let other_port = authority.port_u16().is_some_and(|port| port != own_port);
        text.bytes().all(plain) && (no_port || other_port)
    };
    match authority {
        _ if text == "*" => Ok(text.to_owned()),
        Some(authority) if fits(authority) => Ok(text.to_owned()),
        _ => Err(format!(
            "{:?} is not the origin of a page; write it as browsers send it, like \
             \"https://app.example.org\" or \"http://localhost:3000\": lower case, without path and \
             without the scheme's own port; or \"*\" for any",
            clip(text)
        )),
    }
}

/// An address, or a network in CIDR form (RFC 4632 3.1): `10.0.0.0/8`, `fd00::/8`.
///
/// # Errors
/// What is allowed.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    let alone = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    let Ok(network) = alone.or_else(|_| text.parse::<IpNet>()) else {
        return Err(format!(
            "{:?} is not an address or a network; write it like \"10.0.0.5\", \"10.0.0.0/8\" or \
             \"fd00::/8\"",
            clip(text)
        ));
    };
    if network.addr().is_ipv6() && network.addr().to_canonical().is_ipv4() {
        return Err(format!("{text:?} is a network of IPv4: write it like \"10.0.0.0/8\""));
    }
    if network != network.trunc() {
        let meant = network.trunc();
        return Err(format!("{text:?} is an address in a network; did you mean \"{meant}\"?"));
    }
    Ok(network)
}

/// A path prefix: it begins with a slash and has no query.
///
/// # Errors
/// What is allowed.
pub fn parse_path_prefix(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '*');
    if !text.starts_with('/') {
        return Err(format!("{:?} must begin with '/', like \"/api\"", clip(text)));
    }
    if !text.chars().all(fits) || text.split('/').any(|part| part == "..") {
        return Err(format!(
            "{:?} is not a path prefix; write visible ASCII without '?', '#', '*' and '..'",
            clip(text)
        ));
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// SHA-256 in hex, as `strait token` prints it.
///
/// # Errors
/// What is allowed.
pub fn parse_digest(text: &str) -> Result<TokenDigest, String> {
    text.parse()
        .map_err(|()| "must be a SHA-256 in 64 hex digits, as `strait token` prints it".to_owned())
}

/// The pin of a certificate, as the server prints it.
///
/// # Errors
/// What is allowed.
pub fn parse_pin(text: &str) -> Result<Pin, String> {
    text.parse().map_err(|_| {
        format!(
            "{:?} is not a pin; copy it from the server: \"sha256:\" and 64 hex digits",
            clip(text)
        )
    })
}

/// A log level, or levels by target.
///
/// # Errors
/// What is allowed.
pub fn parse_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |level: &str| LEVELS.contains(&level.to_ascii_lowercase().as_str());
    let fits = text.split(',').all(|item| match item.split_once('=') {
        Some((target, level)) => !target.is_empty() && known(level),
        None => known(item),
    });
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{:?} is not a level; allowed: {}, or by target like \"info,strait_node=debug\"",
        clip(text),
        LEVELS.join(", ")
    ))
}

/// Whether `text` is what `pattern` says, where each `*` stands for any text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// A foreign text, short enough to be shown.
pub(super) fn clip(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    text.chars().take(57).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_their_units() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("500 ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in [
            "10",
            "-5s",
            "",
            "s",
            "1.5s",
            "10 years",
            "99999999999999999999s",
            "9999999999999999999h",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_size("64KiB"), Ok(65536));
        assert_eq!(parse_size("1MB"), Ok(1_000_000));
        for bad in ["64", "10XB", "-1B", "KiB", "99999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_hosts_and_paths_are_checked() {
        assert!(parse_name("web-1.x_y").is_ok());
        for bad in ["", "..", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_host_pattern("*.Example.org"), Ok("*.example.org".to_owned()));
        for good in ["localhost", "127.0.0.1", "[::1]"] {
            assert!(parse_host_pattern(good).is_ok(), "{good}");
        }
        for bad in ["", "*", "a..b", "http://a", "a:80", "a/b", "*.*.a", "a b", "[zz]"] {
            assert!(parse_host_pattern(bad).is_err(), "{bad}");
        }
        for good in ["*", "https://app.example.org", "http://localhost:3000", "http://[::1]:8080"] {
            assert_eq!(parse_origin(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "null",
            "app.example.org",
            "https://",
            "https://a/",
            "https://A",
            "https://a:443",
            "ftp://a",
            "https://u@a",
            "https://*.a",
            "http://a:80800",
        ] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_path_prefix("/api/"), Ok("/api".to_owned()));
        assert_eq!(parse_path_prefix("/"), Ok("/".to_owned()));
        for bad in ["api", "", "/a?b", "/a b", "/a/../b", "/*"] {
            assert!(parse_path_prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("web", "web", true),
            ("web", "web2", false),
            ("api-*", "api-v1", true),
            ("api-*", "web", false),
            ("*-v1", "api-v1", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}

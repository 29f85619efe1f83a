//! The one place where backend addresses enter the configuration.

pub use strait_edge::{BackendAddress, Place, Scheme};

use super::value::clip;

/// Reads `3000`, `host:3000` (both spoken to as `default` says) or a full address.
///
/// # Errors
/// What is allowed.
pub fn parse_backend(text: &str, default: Scheme) -> Result<BackendAddress, String> {
    if text.len() > 300 {
        return Err(format!("{:?} is too long for an address", clip(text)));
    }
    // A socket's relative path would depend on where the node was started.
    let socket = ["unix:", "unix+h2c:"].iter().find_map(|kind| text.strip_prefix(kind));
    if socket.is_some_and(|path| !path.starts_with('/')) {
        return Err(format!(
            "{text:?}: the path of a socket begins with '/', like unix:/run/a.sock"
        ));
    }
    BackendAddress::parse(text, default).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_read_in_short_and_full_form() {
        let read = |text| parse_backend(text, Scheme::Http).map(|address| address.to_string());
        for (text, expected) in [
            ("3000", "http://localhost:3000"),
            ("app:3000", "http://app:3000"),
            ("http://app:3000/", "http://app:3000"),
            ("h2c://[::1]:50051", "h2c://[::1]:50051"),
            ("https://app.example", "https://app.example:443"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected));
        }
        for bad in [
            "ftp://x",
            "http://",
            "http://app",
            "app",
            "",
            "0",
            "70000",
            "http://a:0",
            "http://a:99999",
            "http://a:3000/path",
            "http://u@a:1",
            "unix:app.sock",
            "http://a b:1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

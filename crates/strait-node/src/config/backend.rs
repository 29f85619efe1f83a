//! The address of a backend, as text that has been checked.

use std::fmt;

use super::value::clip;

/// Where a service's backend is, in its full form: `http://127.0.0.1:3000`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendAddress(String);

impl BackendAddress {
    /// The full form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `host:port` of a backend on TCP; `None` for a unix socket.
    pub fn tcp(&self) -> Option<&str> {
        self.0.split_once("://").map(|(_, authority)| authority)
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const SCHEMES: [&str; 7] = ["http", "https", "h2c", "ws", "wss", "unix", "unix+h2c"];

/// Reads `3000`, `host:3000` (both with `scheme`) or a full address. This is the one place
/// where backend addresses enter the configuration.
///
/// # Errors
/// What is allowed.
pub fn parse_backend(text: &str, scheme: &str) -> Result<BackendAddress, String> {
    let shown = clip(text);
    let allowed = "write a port, host:port, or an address with http, https, h2c, ws, wss, unix \
                   or unix+h2c, like \"http://127.0.0.1:3000\" or \"unix:/run/app.sock\"";
    if let Some((kind, path)) = text.split_once(':').filter(|(kind, _)| kind.starts_with("unix")) {
        if !SCHEMES.contains(&kind) {
            return Err(format!("{shown:?}: unknown scheme {kind}; {allowed}"));
        }
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.contains('\0') {
            return Err(format!("{shown:?} names no absolute path; {allowed}"));
        }
        return Ok(BackendAddress(format!("{kind}:{path}")));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or((scheme, text));
    if !SCHEMES.contains(&scheme) {
        let near = super::nearest(scheme, &SCHEMES);
        let near = near.map_or(String::new(), |near| format!(" (did you mean {near}://?)"));
        return Err(format!("{shown:?}: {}:// is not possible{near}; {allowed}", clip(scheme)));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return Err(format!("{shown:?} has more than host and port; {allowed}"));
    }
    let is_port = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    let full = if is_port { format!("127.0.0.1:{rest}") } else { rest.to_owned() };
    let parsed = full.parse::<http::uri::Authority>().ok().filter(|a| !a.host().is_empty());
    let Some(authority) = parsed else {
        return Err(format!("{shown:?} names no host; {allowed}"));
    };
    let has_port = full.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    match authority.port_u16() {
        Some(0) => Err(format!("{shown:?} has port 0; allowed: 1 to 65535")),
        None if has_port => Err(format!("{shown:?} has a bad port; allowed: 1 to 65535")),
        None if scheme == "https" || scheme == "wss" => {
            Ok(BackendAddress(format!("{scheme}://{full}:443")))
        }
        None => Err(format!("{shown:?} has no port; {allowed}")),
        Some(_) => Ok(BackendAddress(format!("{scheme}://{full}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_read_in_short_and_full_form() {
        for (text, expected) in [
            ("3000", "http://127.0.0.1:3000"),
            ("app:3000", "http://app:3000"),
            ("http://app:3000/", "http://app:3000"),
            ("h2c://[::1]:50051", "h2c://[::1]:50051"),
            ("https://app.example", "https://app.example:443"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix+h2c:///run/app.sock", "unix+h2c:/run/app.sock"),
        ] {
            assert_eq!(parse_backend(text, "http").map(|a| a.to_string()).as_deref(), Ok(expected));
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
            "unixx:/a",
            "http://a b:1",
        ] {
            assert!(parse_backend(bad, "http").is_err(), "{bad}");
        }
    }
}

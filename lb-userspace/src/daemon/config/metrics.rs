//! `[metrics]`: where Prometheus is listened for.

use serde::Deserialize;
use std::net::SocketAddr;

/// `[metrics]`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(try_from = "Text")]
pub struct Metrics {
    /// Where; nowhere if absent.
    pub listen: Option<SocketAddr>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Text {
    listen: Option<String>,
    allow_remote: bool,
}

impl TryFrom<Text> for Metrics {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let Some(listen) = text.listen else { return Ok(Self::default()) };
        let address: SocketAddr = listen
            .parse()
            .map_err(|_| format!("listen: `{listen}` is no address and port, as 127.0.0.1:9188 or [::1]:9188 are"))?;
        if !address.ip().to_canonical().is_loopback() && !text.allow_remote {
            return Err(format!(
                "listen: {address} can be reached from other machines, without any authentication; allow_remote = true allows it"
            ));
        }
        Ok(Self { listen: Some(address) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Metrics, String> {
        toml::from_str::<Metrics>(text).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn only_this_machine_unless_told_otherwise() {
        assert_eq!(parse("").unwrap().listen, None);
        for own in ["127.0.0.1:9188", "127.8.9.1:1", "[::1]:9188", "[::ffff:127.0.0.1]:9188"] {
            assert_eq!(parse(&format!("listen = \"{own}\"")).unwrap().listen, Some(own.parse().unwrap()));
        }
        for remote in ["0.0.0.0:9188", "[::]:9188", "192.0.2.1:9188", "[::ffff:192.0.2.1]:9188"] {
            let error = parse(&format!("listen = \"{remote}\"")).unwrap_err();
            assert!(error.contains(remote) && error.contains("allow_remote"), "{error}");
            assert!(parse(&format!("listen = \"{remote}\"\nallow_remote = true")).unwrap().listen.is_some());
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        for bad in ["localhost:9188", "127.0.0.1", "9188", ":9188", "127.0.0.1:65536", ""] {
            assert!(parse(&format!("listen = \"{bad}\"")).unwrap_err().contains(&format!("`{bad}`")));
        }
        assert!(parse("lisen = \"127.0.0.1:1\"").unwrap_err().contains("`lisen`"));
    }
}

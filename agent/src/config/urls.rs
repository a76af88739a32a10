//! URLs to listen on.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use thiserror::Error;

/// `http://HOST:PORT` or `https://HOST:PORT`, resolved to an address of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    pub url: String,
    pub address: SocketAddr,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    #[error("{0:?} is not a URL like http://127.0.0.1:2379")]
    Shape(String),
    #[error("{url:?}: the host has no address: {reason}")]
    Unknown { url: String, reason: String },
}

impl ListenUrl {
    /// # Errors
    /// [`UrlError`] says what is wrong with the URL.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let shape = || UrlError::Shape(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| shape())?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(shape()),
        }
        let (host, port) = uri.host().zip(uri.port_u16()).ok_or_else(shape)?;
        if !matches!(uri.path(), "" | "/") {
            return Err(shape());
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = match bare.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port),
            Err(_) => (bare, port)
                .to_socket_addrs()
                .map_err(|error| UrlError::Unknown {
                    url: url.to_owned(),
                    reason: error.to_string(),
                })?
                .next()
                .ok_or_else(|| UrlError::Unknown {
                    url: url.to_owned(),
                    reason: "none found".to_owned(),
                })?,
        };
        Ok(ListenUrl {
            url: url.to_owned(),
            address,
        })
    }

    /// Whether it asks for TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.url.starts_with("https://")
    }

    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.address.ip().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_resolved() {
        let address = |url: &str| ListenUrl::parse(url).unwrap().address.to_string();
        assert_eq!(address("http://127.0.0.1:2379"), "127.0.0.1:2379");
        assert_eq!(address("http://[::1]:2379/"), "[::1]:2379");
        assert!(ListenUrl::parse("http://localhost:1").unwrap().is_loopback());
        assert!(!ListenUrl::parse("http://0.0.0.0:1").unwrap().is_loopback());
        for wrong in ["localhost:1", "http://localhost", "http://x:1/path", "unix:///x"] {
            assert_eq!(ListenUrl::parse(wrong), Err(UrlError::Shape(wrong.to_owned())));
        }
        assert!(ListenUrl::parse("https://127.0.0.1:1").unwrap().is_tls());
    }
}

//! Values that are more than a number or a text.

use std::net::{IpAddr, ToSocketAddrs as _};

use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer as _};

/// The key the service comes with; refused on a public address.
pub const DEFAULT_API_KEY: &str = "dev_api_key";

/// An IP address, or a name that has one.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    // The system reads a lone number as an address too: 8503 would be 0.0.33.55.
    let is_name = text.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'.');
    let found = (&*text, 0).to_socket_addrs().ok().filter(|_| is_name);
    let found: Vec<_> = found.into_iter().flatten().map(|address| address.ip()).collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| D::Error::custom("no address"))
}

/// Values with commas between them; an empty text is an empty list.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let entries = text.split(',').map(|entry| entry.trim().to_owned());
    Ok(if text.trim().is_empty() { Vec::new() } else { entries.collect() })
}

/// One of a few words, in any case.
pub(super) fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?.to_lowercase();
    let word: StrDeserializer<'_, D::Error> = text.as_str().into_deserializer();
    T::deserialize(word)
}

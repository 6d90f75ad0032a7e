//! Ports.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Result;

/// A port of the loopback address that nobody uses now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

//! Ports.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Result;

/// So many ports of the loopback address that nobody uses now, each another.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

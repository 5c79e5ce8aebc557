//! The process that listens on a port, by /proc.

use std::fs;
use std::net::SocketAddr;

/// A process by its id and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub name: String,
}

/// The process that listens where `address` would. `None`: none is found; it may be another user's,
/// or have ended with the kernel still taking its sockets apart.
pub fn holder(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let sockets: Vec<String> = tables
        .iter()
        .flat_map(|table| listening(table, address.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let holds = |pid: u32| {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let mut targets = links.flatten().filter_map(|link| fs::read_link(link.path()).ok());
        targets.find(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    };
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid = pids.into_iter().find(|pid| holds(*pid).is_some())?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Holder { pid, name: name.trim().to_owned() })
}

/// Inodes of the sockets that listen on `port`, in a table like `/proc/net/tcp`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let ours = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTEN;
        if ours { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_told_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 23456 1 0\n   \
                     1: 0100007F:2384 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 23457 1 0\n   \
                     2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 23458 1 0\n";
        assert_eq!(listening(table, 9092), [23456]);
        assert_eq!(listening(table, 22), [23458]);
        assert_eq!(listening("", 22), Vec::<u64>::new());
    }

    #[test]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = holder(listener.local_addr().unwrap()).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(!found.name.is_empty());
    }
}

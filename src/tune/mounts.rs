//! Which file system a directory is on, from /proc/self/mountinfo.

use std::path::Path;

use serde::Serialize;

/// One mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mount {
    pub point: String,
    /// `major:minor`; of file systems without a block device of their own, an
    /// anonymous one (`0:41`).
    pub device: String,
    pub file_system: String,
    /// Source of the mount: `/dev/sda1`, `overlay`, ...
    pub source: String,
    /// The mount's options and the file system's.
    pub options: Vec<String>,
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }

    /// Memory, not a disk.
    pub fn is_memory(&self) -> bool {
        matches!(self.file_system.as_str(), "tmpfs" | "ramfs")
    }
}

/// The mount that an absolute directory is on: the longest mount point above it, of equal ones the
/// last, which hides the others.
pub(super) fn mount_of(mountinfo: &str, directory: &Path) -> Option<Mount> {
    let above = mountinfo.lines().filter_map(parse).filter(|mount| directory.starts_with(&mount.point));
    above.max_by_key(|mount| Path::new(&mount.point).components().count())
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(2);
    let (device, _root, point, own) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let mut fields = file_system.split(' ');
    let (kind, source, of_super) = (fields.next()?, fields.next()?, fields.next().unwrap_or(""));
    let mut options: Vec<String> = Vec::new();
    for option in own.split(',').chain(of_super.split(',')) {
        if !option.is_empty() && !options.iter().any(|known| known == option) {
            options.push(option.to_owned());
        }
    }
    Some(Mount {
        point: unescape(point),
        device: device.to_owned(),
        file_system: kind.to_owned(),
        source: unescape(source),
        options,
    })
}

/// White space and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let digits = bytes.get(index + 1..index + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if bytes[index] == b'\\' => {
                out.push(code);
                index += 4;
            }
            _ => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
27 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,discard
40 27 8:1 / /srv/my\\040logs rw,noatime - xfs /dev/sda1 rw,attr2
41 27 0:30 / /srv rw - tmpfs tmpfs rw
42 27 8:17 / /srv rw - xfs /dev/sdb1 rw
nonsense
43 x";

    #[test]
    fn the_longest_and_last_mount_point_wins() {
        let on = |path: &str| mount_of(TABLE, Path::new(path)).map(|mount| mount.device);
        assert_eq!(on("/var/lib").as_deref(), Some("259:2"));
        assert_eq!(on("/srv/my logs/a").as_deref(), Some("8:1"));
        assert_eq!(on("/srv/x").as_deref(), Some("8:17"));
        assert_eq!(on("/srvx").as_deref(), Some("259:2"));
        assert_eq!(on("relative"), None);
        let root = mount_of(TABLE, Path::new("/")).unwrap();
        assert_eq!((root.file_system.as_str(), root.source.as_str()), ("ext4", "/dev/nvme0n1p2"));
        assert!(root.has("discard") && root.has("relatime") && !root.has("noatime"));
    }
}

//! What kind of volume the database lies on: SQLite needs locks and shared memory that work, and a sync that reaches the disk.

use std::path::Path;

/// Volumes of another machine, by their kernel's number (statfs(2)): two machines see neither each other's locks nor each other's memory.
const OF_ANOTHER_MACHINE: [(u64, &str); 7] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
];
/// What is behind these nobody knows: often a folder of this machine, shared with a container.
const OF_SOMETHING: [(u64, &str); 2] = [(0x6573_5546, "FUSE"), (0x0102_1997, "9p")];

/// The name of the network file system that `folder` is on, if it is on one. Says so in the log where that cannot be told.
#[cfg(target_os = "linux")]
pub(super) fn network(folder: &Path) -> Option<&'static str> {
    // A relative path without a folder is in the current one.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let kind = rustix::fs::statfs(folder).ok().and_then(|volume| u64::try_from(volume.f_type).ok())?;
    let named = |list: &[(u64, &'static str)]| list.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name);
    if let Some(name) = named(&OF_SOMETHING) {
        tracing::warn!(
            volume = name,
            folder = %folder.display(),
            "the database is on a volume of which nobody knows whether its locks and syncs work: if another machine is behind it, move it"
        );
    }
    named(&OF_ANOTHER_MACHINE)
}

/// Elsewhere it cannot be told.
#[cfg(not(target_os = "linux"))]
pub(super) fn network(_folder: &Path) -> Option<&'static str> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_this_machine_is_on_no_network() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(network(folder.path()), None);
        assert_eq!(network(Path::new("")), None);
        assert_eq!(network(Path::new("/no/such/folder")), None, "that is said when the lock is made");
    }
}

use std::fs;
use std::io;
use std::path::Path;

use super::tree::ProcessId;

/// The name of the file within a browser's directory.
const FILE: &str = "record";

/// Record of a running browser, for the sweep of the next start.
///
/// The directory is there before the process is, so a pool that is killed between the two leaves
/// a directory without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) process: ProcessId,
    /// Start times are counted from boot, so they say nothing after the next one.
    boot: String,
}

impl Record {
    pub(super) fn new(process: ProcessId) -> Self {
        Self { process, boot: boot_id() }
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let ProcessId { pid, started } = self.process;
        fs::write(directory.join(FILE), format!("{pid} {started} {}\n", self.boot))
    }

    /// The record of a browser of this boot; `None` too if it was only half written.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join(FILE)).ok()?;
        let mut words = text.strip_suffix('\n')?.split(' ');
        let process =
            ProcessId { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
        let record = Self { process, boot: words.next()?.to_owned() };
        (record.boot == boot_id()).then_some(record)
    }
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_one_of_another_boot_is_not() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(directory.path()), None);
        let mut record = Record::new(ProcessId { pid: 7, started: 99 });
        record.write(directory.path()).unwrap();
        assert_eq!(Record::read(directory.path()), Some(record.clone()));
        record.boot = "another".to_owned();
        record.write(directory.path()).unwrap();
        assert_eq!(Record::read(directory.path()), None);
    }
}

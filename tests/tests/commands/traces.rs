//! What a command has started and may leave behind: processes, and sockets that listen. Told by the kernel, not by
//! the command.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cuewire_tests::wait::PATIENCE;

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Processes by their pid, each with the name of its program.
type Processes = BTreeMap<u32, String>;
/// Sockets that listen, each by its TCP port and its inode, which is no other socket's as long as it is there.
type Listening = HashSet<(u16, u64)>;

/// What runs for a run directory at some time.
pub(crate) struct Traces {
    /// By which its processes are known.
    paths: Vec<String>,
    /// Its processes.
    pub(crate) processes: Processes,
    listening: Listening,
}

impl Traces {
    /// Of the scripts that work in this directory, of all that they have started, and of the servers, whose data may
    /// lie elsewhere.
    pub(crate) fn of(run_dir: &Path) -> Self {
        let mut paths = vec![run_dir.to_str().unwrap().to_owned()];
        paths.extend(fs::read_to_string(run_dir.join("data.path")).map(|path| path.trim_end().to_owned()));
        let processes = processes(&paths);
        let listening = listening_of(&processes);
        Self { paths, processes, listening }
    }

    /// Fails the test unless there are processes of all these names, and on these ports sockets that listen: it
    /// would be seen when they stay.
    #[track_caller]
    pub(crate) fn include(&self, names: &[&str], ports: &[u16]) {
        for name in names {
            assert!(
                self.processes.values().any(|it| it == name),
                "there is no {name} in {:?}",
                self.processes
            );
        }
        for port in ports {
            assert!(self.listening.iter().any(|(it, _)| it == port), "no {port} in {:?}", self.listening);
        }
    }

    /// Waits until nothing of it is there any more, and fails the test where something stays.
    pub(crate) async fn vanish(&self) {
        let gone = async {
            while !processes(&self.paths).is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        assert!(gone.is_ok(), "these are left: {:?}", processes(&self.paths));
        let listening: Vec<_> = listening().intersection(&self.listening).copied().collect();
        assert!(listening.is_empty(), "these ports are still listened to: {listening:?}");
    }
}

/// The processes that have one of these paths in their environment, or work below it. (The dead whom nobody has
/// buried have neither.)
fn processes(paths: &[String]) -> Processes {
    let of = |pid: u32| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let directory = fs::read_link(process.join("cwd")).unwrap_or_default();
        let text = [&String::from_utf8_lossy(&environment), "\0", &directory.to_string_lossy()].concat();
        // `…/test.12` is not meant by `…/test.1`.
        let ends_there = |rest: &str| rest.is_empty() || rest.starts_with(['/', ':', '\0']);
        let is_meant = paths.iter().any(|path| text.split(path).skip(1).any(ends_there));
        let name = || Some(fs::read_to_string(process.join("comm")).ok()?.trim_end().to_owned());
        is_meant.then(|| Some((pid, name()?)))?
    };
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| of(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// All sockets that listen on this machine.
fn listening() -> Listening {
    const LISTEN: &str = "0A";
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        (fields[3] == LISTEN).then(|| Some((port, fields.get(9)?.parse().ok()?)))?
    };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().filter_map(socket)).collect()
}

/// Those that these processes have.
fn listening_of(processes: &Processes) -> Listening {
    let descriptors = |pid| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let inode = |entry: std::io::Result<fs::DirEntry>| -> Option<u64> {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    let theirs: HashSet<u64> = processes.keys().flat_map(descriptors).filter_map(inode).collect();
    listening().into_iter().filter(|(_, inode)| theirs.contains(inode)).collect()
}

//! Where a deployed server lies, and which processes are it. Source: `CommandLoad::execute` of TarsFramework 3.0.17.

use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::unistd::Pid;

use crate::tars::conf;
use crate::tars::registry::Server;

use crate::init::paths::Paths;
use crate::init::processes;

/// The script that tarsnode writes at each start of a server.
const SCRIPT: &str = "tars_start.sh";

/// A server's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its folder: where it keeps what it needs.
    pub folder: PathBuf,
    /// The folder of its executable.
    pub bin: PathBuf,
    /// The file that is run, where it is no interpreter.
    pub file: PathBuf,
    /// Its executable, where it is a program of its own and no other server's.
    program: Option<PathBuf>,
    /// The configuration that tarsnode makes from the templates.
    pub conf: PathBuf,
    log: PathBuf,
}

impl Place {
    /// Where a server of this container lies.
    pub fn of(server: &Server, paths: &Paths) -> Self {
        let id = server.id();
        let base = Path::new(&server.base_path);
        let folder = if base.is_absolute() { paths.inside(base) } else { paths.tarsnode_data().join(&id) };
        let own_bin = folder.join("bin");
        let file = Path::new(&server.exe_path);
        let (bin, file, program) = if server.exe_path.is_empty() {
            let file = own_bin.join(&server.name);
            (own_bin, file.clone(), Some(file))
        } else {
            // One executable may serve several servers, each with a configuration of its own.
            let file = if file.is_absolute() { paths.inside(file) } else { own_bin.join(file) };
            let is_java = server.server_type == "tars_java" && Path::new(&server.exe_path).is_absolute();
            let bin = if is_java { own_bin } else { file.parent().unwrap_or(&own_bin).to_owned() };
            (bin, file, None)
        };
        let conf = folder.join("conf").join(format!("{id}.config.conf"));
        let log = log_folder(&conf, paths).unwrap_or_else(|| folder.clone());
        Self {
            folder: simple(&folder),
            bin: simple(&bin),
            file: simple(&file),
            program: program.map(|file| simple(&file)),
            conf: simple(&conf),
            log,
        }
    }

    /// The script that starts it as tarsnode does.
    pub fn script(&self) -> PathBuf {
        self.bin.join(SCRIPT)
    }

    /// Where that script leaves the process id.
    pub fn script_pid(&self) -> PathBuf {
        self.bin.join(format!("{SCRIPT}.pid"))
    }

    /// Where tarsnode lets servers work: cores are found there.
    pub fn working_folder(&self) -> &Path {
        if self.log.is_dir() { &self.log } else { &self.folder }
    }

    /// What it prints goes there.
    pub fn output(&self, server: &Server) -> PathBuf {
        let (application, name) = (&server.application, &server.name);
        self.log.join(application).join(name).join(format!("{application}.{name}.log"))
    }

    /// The processes of this container that are it: by its configuration among their arguments, whatever interprets it, or by its
    /// own executable.
    pub fn processes(&self) -> Vec<Pid> {
        let conf = self.conf.as_os_str().as_encoded_bytes();
        processes::all()
            .into_iter()
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0).any(|word| word.ends_with(conf))
                    || self.program.as_ref().is_some_and(|program| runs(*pid, program))
            })
            .filter(|pid| processes::is_running(*pid))
            .collect()
    }
}

fn runs(pid: Pid, program: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|file| {
        // The kernel's mark of a file that was replaced since.
        let shown = file.as_os_str().as_encoded_bytes();
        shown.strip_suffix(b" (deleted)").unwrap_or(shown) == program.as_os_str().as_encoded_bytes()
    })
}

/// `logpath` of the server's configuration.
fn log_folder(conf: &Path, paths: &Paths) -> Option<PathBuf> {
    let whole = conf::parse(&fs::read_to_string(conf).ok()?).ok()?;
    let folder = whole.at(&["tars", "application", "server"])?.get("logpath")?.trim();
    let folder = Path::new(folder);
    folder.is_absolute().then(|| simple(&paths.inside(folder)))
}

/// Without `.`, `..` and doubled slashes, as tarsnode simplifies a path: links are not followed.
fn simple(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server { application: "Demo".to_owned(), name: "HelloServer".to_owned(), ..Server::default() }
    }

    #[test]
    fn files_lie_where_tarsnode_has_them() {
        let paths = Paths::below("/");
        let of = |base: &str, exe: &str, kind: &str| {
            let server = Server {
                base_path: base.to_owned(),
                exe_path: exe.to_owned(),
                server_type: kind.to_owned(),
                ..server()
            };
            let place = Place::of(&server, &paths);
            (place.script().display().to_string(), place.conf.display().to_string())
        };
        let data = "/usr/local/app/tars/tarsnode/data/Demo.HelloServer";
        let conf = format!("{data}/conf/Demo.HelloServer.config.conf");
        assert_eq!(of("", "", "tars_cpp"), (format!("{data}/bin/tars_start.sh"), conf.clone()));
        assert_eq!(of("relative", "", "tars_cpp"), (format!("{data}/bin/tars_start.sh"), conf.clone()));
        assert_eq!(of("", "sub/Other", "tars_cpp"), (format!("{data}/bin/sub/tars_start.sh"), conf.clone()));
        assert_eq!(
            of("", "/opt/a/../x/Hello", "tars_cpp"),
            ("/opt/x/tars_start.sh".to_owned(), conf.clone())
        );
        assert_eq!(of("", "/usr/bin/java", "tars_java"), (format!("{data}/bin/tars_start.sh"), conf));
        let moved = "/srv/hello/conf/Demo.HelloServer.config.conf".to_owned();
        assert_eq!(of("/srv/hello/", "", "tars_cpp"), ("/srv/hello/bin/tars_start.sh".to_owned(), moved));
    }

    #[test]
    fn a_server_is_its_configuration_whatever_interprets_it() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let place = Place::of(&server(), &paths);
        assert!(place.processes().is_empty());
        let other = format!("{}.other", place.conf.display());
        let mut others = std::process::Command::new("sh")
            .args(["-c", "read x", "sh", &other])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let argument = format!("-Dconfig={}", place.conf.display());
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read x", "sh", &argument])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        while place.processes() != [pid] {
            std::thread::yield_now();
        }
        for child in [&mut child, &mut others] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(place.processes().is_empty());
    }
}

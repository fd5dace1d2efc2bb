//! How a service is started: its program, configuration and library path, and where its first words go.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::tars::Service;

use super::failure::{Code, Failure};
use super::output_log;
use super::paths::Paths;
use super::secret;

/// Refuses an image that lacks a program of its role, by name; one that is not executable is made so, as upstream's
/// start scripts do: the web console may have published it without the mode.
pub fn check_programs(paths: &Paths, services: &[Service]) -> Result<(), Failure> {
    for service in services.iter().copied() {
        let program = paths.program(service);
        let Ok(found) = program.metadata() else {
            return Err(Failure::new(
                Code::Configuration,
                format!("the image has no program for {service}: {} is not there.", program.display()),
                "Build the image with a package of every service of its role.",
            ));
        };
        let mode = found.permissions().mode();
        if mode & 0o111 == 0 {
            // A read-only layer says so when the service is started.
            let _ = fs::set_permissions(&program, fs::Permissions::from_mode(mode | 0o755));
        }
    }
    Ok(())
}

/// What crashes leaves a core file where the machine wants one, as upstream's `ulimit -c unlimited` before each service has
/// it. A container whose own limit is lower keeps that. How many files may be open is Docker's to say, as with upstream.
pub fn allow_core_dumps() {
    if setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).is_err()
        && let Ok((_, most)) = getrlimit(Resource::RLIMIT_CORE)
    {
        let _ = setrlimit(Resource::RLIMIT_CORE, most, most);
    }
}

/// Starts a service. tarsnode's process ends at once: it daemonizes itself.
pub fn start(paths: &Paths, service: Service, address: &str) -> io::Result<Pid> {
    let mut command = Command::new(paths.program(service));
    if service == Service::Node {
        command.arg(format!("--nodeid={address}"));
    }
    let mut conf = OsString::from("--config=");
    let generated = paths.generated_conf(service);
    conf.push(if generated.is_file() { generated } else { paths.own_conf(service) });
    command.arg(conf).env("LD_LIBRARY_PATH", library_path(paths, service)).current_dir(paths.tars());
    launch(command, paths, service.name())
}

/// Starts a prepared command with its words in a file of the volume, and without passwords: what tarsnode
/// starts would inherit them.
pub fn launch(mut command: Command, paths: &Paths, name: &str) -> io::Result<Pid> {
    let log = output_log::begin(paths, name)?;
    secret::keep_from(&mut command);
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    Ok(Pid::from_raw(child.id().cast_signed()))
}

/// What tarsnode is started with, and hands on to its servers.
pub fn library_path_of_node(paths: &Paths) -> OsString {
    library_path(paths, Service::Node)
}

fn library_path(paths: &Paths, service: Service) -> OsString {
    let mut value = std::env::var_os("LD_LIBRARY_PATH").filter(|value| !value.is_empty()).unwrap_or_default();
    for folder in [paths.service(service).join("bin"), paths.tarsnode_data().join("lib")] {
        if !value.is_empty() {
            value.push(":");
        }
        value.push(folder);
    }
    value
}

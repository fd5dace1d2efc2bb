//! Packs stand-ins into packages of the true layouts and sizes, with configuration templates and SQL beside them.

mod configuration;
mod padding;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use flate2::{Compression, GzBuilder};
use tarsup::tars::Service;

use crate::Failure;
use crate::fault::{Fault, MAGIC, Note};

const USAGE: &str = "usage: standin pack --out DIR --version V [--from V0 --differ service,...] [--fault service=fault]... \
                     [--separate] [--small]
  writes DIR/packages/*.tgz (framework.tgz and the six common services; with --separate the five core services instead
  of the bundle), DIR/core/tarsnode.tgz for a node image, DIR/deploy/framework/{conf,sql} and DIR/deploy/FRAMEWORK_VERSION.txt.
  --from V0     what --differ does not name has the bytes of V0
  --fault       slow=S, never-answer, crash-after=S, exit=CODE or slow-stop=S; the service differs from then on
  --small       without the padding to realistic sizes";

/// What to pack.
struct Order {
    out: PathBuf,
    version: String,
    from: Option<String>,
    differ: BTreeSet<Service>,
    faults: BTreeMap<Service, String>,
    separate: bool,
    small: bool,
}

/// `pack`: see [`USAGE`].
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let order = Order::parse(arguments)?;
    let program = fs::read("/proc/self/exe")?;
    let packages = order.out.join("packages");
    fs::create_dir_all(&packages)?;
    fs::create_dir_all(order.out.join("core"))?;
    let core: Vec<Service> = Service::ALL.into_iter().filter(|service| service.is_core()).collect();
    let mut jobs: Vec<(PathBuf, Vec<Service>)> =
        vec![(order.out.join("core/tarsnode.tgz"), vec![Service::Node])];
    if order.separate {
        jobs.extend(core.iter().map(|service| (packages.join(format!("{service}.tgz")), vec![*service])));
    } else {
        jobs.push((packages.join("framework.tgz"), core));
    }
    let common = Service::ALL.into_iter().filter(|service| !service.is_core());
    jobs.extend(common.map(|service| (packages.join(format!("{service}.tgz")), vec![service])));
    thread::scope(|scope| {
        let (order, program) = (&order, &program);
        let running: Vec<_> = jobs
            .iter()
            .map(|(path, services)| scope.spawn(move || package(order, program, path, services)))
            .collect();
        running.into_iter().try_for_each(|job| job.join().map_err(|_| "a packer stopped")?)
    })?;
    deploy(&order.out.join("deploy"), &order.version)
}

impl Order {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let (mut out, mut version) = (None, None);
        let mut order = Self {
            out: PathBuf::new(),
            version: String::new(),
            from: None,
            differ: BTreeSet::new(),
            faults: BTreeMap::new(),
            separate: false,
            small: false,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--out" => out = Some(PathBuf::from(value()?)),
                "--version" => version = Some(value()?.clone()),
                "--from" => order.from = Some(value()?.clone()),
                "--differ" => {
                    for name in value()?.split(',') {
                        order.differ.insert(name.parse()?);
                    }
                }
                "--fault" => {
                    let (name, fault) = value()?.split_once('=').ok_or(USAGE)?;
                    fault.parse::<Fault>()?;
                    let service = name.parse()?;
                    order.differ.insert(service);
                    order.faults.insert(service, fault.to_owned());
                }
                "--separate" => order.separate = true,
                "--small" => order.small = true,
                _ => return Err(format!("{word}: unknown\n{USAGE}").into()),
            }
        }
        order.out = out.ok_or(USAGE)?;
        order.version = version.ok_or(USAGE)?;
        Ok(order)
    }

    /// The version whose bytes a service has.
    fn version_of(&self, service: Service) -> &str {
        match &self.from {
            Some(from) if !self.differ.contains(&service) => from,
            _ => &self.version,
        }
    }

    /// The program that plays a service: the stand-in itself, padding to the real one's size, and the note.
    fn binary(&self, program: &[u8], service: Service) -> Vec<u8> {
        let version = self.version_of(service);
        let fault = self.faults.get(&service).map_or("none", String::as_str);
        let note = Note::text(service, version, fault);
        let mut binary = program.to_vec();
        padding::stamp_build_id(&mut binary, &note);
        let size = if self.small { 0 } else { real_size(service) };
        padding::extend(&mut binary, size.saturating_sub(note.len() + 12), &note);
        binary.extend(note.as_bytes());
        binary.extend(u32::try_from(note.len()).unwrap_or(0).to_le_bytes());
        binary.extend(MAGIC);
        binary
    }
}

/// The sizes of the real binaries, in bytes: TarsFramework 3.0.17 on Debian 12, not stripped.
const fn real_size(service: Service) -> usize {
    match service {
        Service::AdminRegistry => 11_070_352,
        Service::Registry => 9_999_728,
        Service::Config => 9_246_608,
        Service::Node => 4_645_544,
        Service::Notify => 9_156_816,
        Service::Property => 9_420_000,
        Service::QueryProperty => 9_300_000,
        Service::QueryStat => 9_290_000,
        Service::Stat => 9_438_880,
        Service::Log => 3_829_592,
        Service::Patch => 3_274_888,
    }
}

/// One package as `make X-tar` writes it: today's time in every header and in gzip's, whoever packs as owner.
fn package(order: &Order, program: &[u8], path: &Path, services: &[Service]) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let file = fs::File::create(path)?;
    let gzip = GzBuilder::new().mtime(u32::try_from(now).unwrap_or(0)).write(file, Compression::default());
    let mut archive = tar::Builder::new(gzip);
    let mut append = |name: &str, kind: tar::EntryType, bytes: &[u8]| -> Result<(), Failure> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_mtime(now);
        header.set_size(bytes.len() as u64);
        header.set_username("root")?;
        header.set_groupname("root")?;
        Ok(archive.append_data(&mut header, name, bytes)?)
    };
    for service in services.iter().copied() {
        append(&format!("{service}/"), tar::EntryType::Directory, &[])?;
        let folder = if service.is_core() {
            append(&format!("{service}/bin/"), tar::EntryType::Directory, &[])?;
            format!("{service}/bin")
        } else {
            service.to_string()
        };
        append(&format!("{folder}/{service}"), tar::EntryType::Regular, &order.binary(program, service))?;
    }
    archive.into_inner()?.finish()?;
    Ok(())
}

/// The `deploy` tree of `make install`, without servers and web.
fn deploy(folder: &Path, version: &str) -> Result<(), Failure> {
    let mut files: BTreeMap<String, String> = schema::files();
    for service in Service::ALL {
        files.insert(
            format!("framework/conf/{service}/conf/tars.{service}.config.conf"),
            configuration::of(service),
        );
    }
    files.insert("FRAMEWORK_VERSION.txt".to_owned(), format!("{version}\n"));
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, text)?;
    }
    Ok(())
}

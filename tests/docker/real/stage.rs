//! Images of the real framework: two releases, a patched one and one that cannot come up, with and without its web.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use crate::beside;
use crate::e2e::stage::{Stage, bases, succeed};

/// The repository prefix of these images.
pub const PREFIX: &str = "tarsup-real";
/// The release that is deployed first.
pub const RELEASE: &str = "3.0.17";
/// Its successor: tarsstat and tarsnotify differ.
pub const PATCHED: &str = "3.0.17-patched";
/// A release of three years before, with other tables.
pub const FORMER: &str = "2.4.17";
/// Somebody packed tarslog's program as tarsconfig.
pub const WRONG: &str = "3.0.17-wrong";
/// A node as upstream's image makes it: only its start is in it.
pub const UPSTREAM_NODE: &str = "upstream-node";
/// The release as upstream's image starts it, with its web console.
pub const UPSTREAM_FRAMEWORK: &str = "upstream-framework";
/// The older release in the same way.
pub const UPSTREAM_FORMER: &str = "upstream-former";
/// The release with its web console.
pub const WITH_WEB: &str = "3.0.17-web";

static STAGE: OnceLock<Stage> = OnceLock::new();
/// What is on it beside the two that are always there.
static MORE: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// The stage with `RELEASE` and `PATCHED` on it; `None` where the real framework is not there.
pub fn stage(test: &str) -> Option<&'static Stage> {
    let real = beside::folder("real", test)?;
    Some(STAGE.get_or_init(|| {
        let images = Stage::empty("real", PREFIX);
        for recipe in ["framework", "node"] {
            let recipe = images.path(&format!("images/{recipe}.yaml"));
            let written = fs::read_to_string(&recipe).unwrap();
            fs::write(&recipe, written.replace("base/framework.tar", "base/real.tar")).unwrap();
        }
        lay_out(&images, &real.join(format!("v{RELEASE}")));
        images.build("database", "10.11", None);
        both(&images, RELEASE, None);
        for package in ["tarsstat.tgz", "tarsnotify.tgz"] {
            replace(&images, &real.join("v3.0.17-patched").join(package));
        }
        both(&images, PATCHED, Some(RELEASE));
        images
    }))
}

/// The same with one more version on it.
pub fn stage_with(version: &'static str, test: &str) -> Option<&'static Stage> {
    let images = stage(test)?;
    let real = beside::folder("real", test)?;
    // A test that failed in here fails the next one in the same way.
    let mut more = MORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if more.contains(&version) {
        return Some(images);
    }
    match version {
        FORMER => {
            lay_out(images, &real.join(format!("v{FORMER}")));
            both(images, FORMER, None);
        }
        WRONG => {
            lay_out(images, &real.join(format!("v{RELEASE}")));
            mislabel(images);
            both(images, WRONG, Some(RELEASE));
        }
        WITH_WEB => {
            lay_out(images, &real.join(format!("v{RELEASE}")));
            let web = real.join("web.tgz");
            let written = fs::read_to_string(images.path("images/framework.yaml")).unwrap();
            let written = written.replace("base/real.tar", "base/web.tar");
            fs::write(images.path("images/web.yaml"), format!("{written}web: {}\n", web.display())).unwrap();
            images.build_as("web", "framework", WITH_WEB, None);
            images.build("node", WITH_WEB, Some(RELEASE));
        }
        UPSTREAM_NODE => {
            let entry = real.join("upstream/tars-node-entrypoint.sh");
            let files = format!("{}: {{path: /root/entry.sh, mode: \"0755\"}}", entry.display());
            plain(images, UPSTREAM_NODE, &files, "/root/entry.sh");
        }
        UPSTREAM_FRAMEWORK => upstream(images, &real, UPSTREAM_FRAMEWORK, RELEASE),
        UPSTREAM_FORMER => upstream(images, &real, UPSTREAM_FORMER, FORMER),
        other => panic!("{other} is no version of this stage"),
    }
    more.push(version);
    Some(images)
}

fn both(stage: &Stage, version: &str, after: Option<&str>) {
    for image in ["framework", "node"] {
        stage.build(image, version, after);
    }
}

/// What `npm run prd` is in the console's `package.json`, and what pm2 does then: start it, and again where it dies. No package
/// of Debian's has them.
const NPM: &str = "#!/bin/sh\n[ \"$*\" != 'run prd' ] || exec pm2 start bin/www --name=tars-node-web\n";
const PM2: &str = "#!/bin/sh\n[ \"$1\" = start ] || exit 0\n\
    setsid sh -c 'while :; do node \"$0\"; sleep 1; done' \"$2\" >>/data/tars/web_log/pm2.log 2>&1 </dev/null &\n";

/// A release with the tree, the start and the console of upstream's image.
fn upstream(images: &Stage, real: &Path, name: &str, version: &str) {
    let (tree, servers) = (images.path("build/upstream"), images.path("build/servers"));
    let (tools, console) = (images.path("build/tools"), images.path("build/console"));
    for folder in [&tree, &servers, &tools, &console] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).unwrap();
    }
    let release = real.join(format!("v{version}"));
    unpack(&release.join("deploy.tgz"), &["--strip-components=1"], &tree);
    unpack(&real.join("web.tgz"), &["web/sql"], &tree);
    unpack(&real.join("web.tgz"), &[], &console);
    for package in packages(&release) {
        unpack(&package, &[], &servers);
    }
    for service in fs::read_dir(servers).unwrap() {
        let folder = service.unwrap().path();
        let name = folder.file_name().unwrap().to_owned();
        let program = [folder.join("bin").join(&name), folder.join(&name)];
        let program = program.into_iter().find(|program| program.is_file()).unwrap();
        let bin = tree.join("framework/servers").join(&name).join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(program, bin.join(&name)).unwrap();
    }
    let mut files = format!(
        "{}: /usr/local/tars/cpp/deploy, {}: /usr/local/app/web",
        tree.display(),
        console.join("web").display()
    );
    for (tool, text) in [("npm", NPM), ("pm2", PM2)] {
        fs::write(tools.join(tool), text).unwrap();
        let path = tools.join(tool);
        files = format!("{files}, {}: {{path: /usr/local/bin/{tool}, mode: \"0755\"}}", path.display());
    }
    plain(images, name, &files, "/usr/local/tars/cpp/deploy/docker-init.sh");
}

/// An image that is none of ours, on a base with what upstream's starts call.
fn plain(stage: &Stage, name: &str, files: &str, entry: &str) {
    let recipe = format!(
        "name: {PREFIX}/{name}\nversion: 1\nrole: plain\nbase: rootfs:{}\nfiles: {{{files}}}\nentrypoint: [{entry}]\n",
        bases().join("upstream.tar").display()
    );
    fs::write(stage.path(&format!("images/{name}.yaml")), recipe).unwrap();
    stage.build(name, "1", None);
}

/// `build/` as the recipes expect it, from the packages of one release.
fn lay_out(stage: &Stage, release: &Path) {
    let build = stage.path("build");
    let _ = fs::remove_dir_all(&build);
    for folder in ["packages", "core"] {
        fs::create_dir_all(build.join(folder)).unwrap();
    }
    std::os::unix::fs::symlink(bases(), build.join("base")).unwrap();
    for package in packages(release) {
        replace(stage, &package);
    }
    unpack(&release.join("deploy.tgz"), &["deploy/framework", "deploy/tools"], &build);
    unpack(&release.join("framework.tgz"), &["tarsnode"], &build.join("core"));
    pack(&build.join("core"), "tarsnode", &build.join("core/tarsnode.tgz"));
}

fn packages(release: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(release).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| !path.ends_with("deploy.tgz")).collect()
}

/// Puts a package among those of the next build, in the place of its namesake.
fn replace(stage: &Stage, package: &Path) {
    let place = stage.path("build/packages").join(package.file_name().unwrap());
    let _ = fs::remove_file(&place);
    std::os::unix::fs::symlink(package, place).unwrap();
}

/// A slip of a packer's: the framework's bundle carries another service's program under tarsconfig's name.
fn mislabel(stage: &Stage) {
    let (build, folder) = (stage.path("build"), stage.path("build/wrong"));
    unpack(&build.join("packages/framework.tgz"), &[], &folder);
    unpack(&build.join("packages/tarslog.tgz"), &[], &folder);
    fs::copy(folder.join("tarslog/tarslog"), folder.join("tarsconfig/bin/tarsconfig")).unwrap();
    fs::remove_dir_all(folder.join("tarslog")).unwrap();
    fs::remove_file(build.join("packages/framework.tgz")).unwrap();
    pack(&folder, ".", &build.join("packages/framework.tgz"));
}

fn unpack(archive: &Path, options: &[&str], into: &Path) {
    fs::create_dir_all(into).unwrap();
    let mut tar = Command::new("tar");
    succeed(tar.arg("-xzf").arg(archive).arg("-C").arg(into).arg("--no-same-owner").args(options));
}

fn pack(folder: &Path, what: &str, archive: &Path) {
    let mut tar = Command::new("tar");
    succeed(tar.arg("-czf").arg(archive).arg("-C").arg(folder).arg(what));
}

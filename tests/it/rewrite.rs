//! Rewriting a tag: that tag and not a byte more, and back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tarsup::deploy::rewrite::{self, RewriteError};
use tarsup::diagnose::Diagnose;
use tarsup::oci::Reference;

use crate::compose::Project;

fn image(text: &str) -> Reference {
    text.parse().expect("a reference")
}

#[test]
fn tag_is_rewritten_and_every_other_byte_is_kept() {
    for (files, changed) in [
        (
            vec![(
                "compose.yaml",
                "# image: t/f:1\r\nservices:\r\n  s:\r\n    image:   \"t/f:1\"   # t/f:1\r\n",
            )],
            "compose.yaml",
        ),
        (
            vec![("compose.yaml", "services: {s: {hostname: h, labels: {A: t/f:1}, image: 't/f:1'}}\n")],
            "compose.yaml",
        ),
        (vec![("compose.yaml", "x-i: &i t/f:1\nservices:\n  s:\n    image: *i")], "compose.yaml"),
        (
            vec![
                ("compose.yaml", "services:\n  s:\n    image: t/f:${TAG:-0}\n"),
                (".env", "OTHER=1\nexport TAG = '1' # 1\n#TAG=1\n"),
            ],
            ".env",
        ),
        (
            vec![("compose.yaml", "services:\n  s:\n    image: ${IMAGE}\n"), (".env", "IMAGE=t/f:1\r\n")],
            ".env",
        ),
    ] {
        let project = Project::new(&files);
        let desired = project.load().unwrap();
        let edits = rewrite::set_image(&desired, &["s"], &image("t/f:2.0")).unwrap();
        for (file, before) in &files {
            let after = fs::read_to_string(project.path(file)).unwrap();
            if *file == changed {
                let (at, length) = (edits[0].offset, edits[0].before.len());
                let expected = format!("{}{}{}", &before[..at], edits[0].after, &before[at + length..]);
                assert_eq!(after, expected);
                assert!(after.contains("2.0"));
            } else {
                assert_eq!(&after, before);
            }
        }
        assert_eq!(project.load().unwrap().services[0].image, image("t/f:2.0"));
        rewrite::undo(&edits).unwrap();
        rewrite::undo(&edits).unwrap();
        for (file, before) in &files {
            assert_eq!(&fs::read_to_string(project.path(file)).unwrap(), before);
        }
    }
}

#[test]
fn several_lines_of_several_files_are_rewritten_together_and_taken_back() {
    let compose = "services:\n  a:\n    image: t/f:1\n  b:\n    image: t/n:${N}\n  c:\n    image: t/f:1\n";
    let project = Project::new(&[("compose.yaml", compose), (".env", "N=1\n")]);
    let desired = project.load().unwrap();
    let mut images = rewrite::same_image(&["a", "c"], &image("t/f:10.0"));
    images.insert("b".to_owned(), image("t/n:10.0"));
    rewrite::check(&desired, &images).unwrap();
    let edits = rewrite::set_images(&desired, &images).unwrap();
    assert_eq!(
        fs::read_to_string(project.path("compose.yaml")).unwrap(),
        compose.replace("t/f:1", "t/f:10.0")
    );
    assert_eq!(fs::read_to_string(project.path(".env")).unwrap(), "N=10.0\n");
    assert!(rewrite::set_images(&project.load().unwrap(), &images).unwrap().is_empty());
    rewrite::undo(&edits).unwrap();
    assert_eq!(fs::read_to_string(project.path("compose.yaml")).unwrap(), compose);
}

#[test]
fn mode_and_links_are_kept() {
    let project = Project::new(&[("real.yaml", "services:\n  s:\n    image: t/f:1\n")]);
    fs::set_permissions(project.path("real.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("real.yaml", project.path("compose.yaml")).unwrap();
    let desired = project.load().unwrap();
    rewrite::set_image(&desired, &["s"], &image("t/f:2")).unwrap();
    assert!(fs::symlink_metadata(project.path("compose.yaml")).unwrap().is_symlink());
    assert_eq!(fs::metadata(project.path("real.yaml")).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(project.path("")).unwrap().count(), 2);
}

#[test]
fn what_cannot_be_rewritten_by_itself_is_refused_and_nothing_changes() {
    let two = "x-i: &i t/f:1\nservices:\n  s:\n    image: *i\n  o:\n    image: *i\n";
    for (compose, env, wanted) in [
        (two, "", "t/f:2"),
        ("services:\n  s:\n    image: t/f:${T}\n  o:\n    image: t/o:${T}\n", "T=1\n", "t/f:2"),
        ("services:\n  s:\n    image: t/f:v${T}\n", "T=1\n", "t/f:v2"),
        ("services:\n  s:\n    image: t/f:${T:-1}\n", "", "t/f:2"),
        ("services:\n  s:\n    image: t/f:${S}\n", "", "t/f:2"),
        ("services:\n  s:\n    image: ${A}/${B}\n", "A=t\nB=f:1\n", "t/f:2"),
        ("services:\n  s:\n    image: t/f:${T}\n", "B=1\nT=$B\n", "t/f:2"),
        ("services:\n  s:\n    image: t/f:${T}\n", "T=1\n", "t/g:2"),
    ] {
        let project = Project::new(&[("compose.yaml", compose), (".env", env)]).shell("S", "1");
        let desired = project.load().unwrap();
        let error = rewrite::set_image(&desired, &["s"], &image(wanted)).expect_err(compose);
        assert!(error.place().is_some() && error.hint().is_some(), "{error}");
        assert_eq!(fs::read_to_string(project.path("compose.yaml")).unwrap(), compose);
        assert_eq!(fs::read_to_string(project.path(".env")).unwrap(), env);
    }
}

#[test]
fn undo_leaves_a_file_alone_that_somebody_changed_since() {
    let project = Project::new(&[("compose.yaml", "services:\n  s:\n    image: t/f:1\n")]);
    let edits = rewrite::set_image(&project.load().unwrap(), &["s"], &image("t/f:2")).unwrap();
    let changed = "services:\n  s:\n    image: t/f:2\n    tty: true\n";
    fs::write(project.path("compose.yaml"), changed).unwrap();
    assert!(matches!(rewrite::undo(&edits), Err(RewriteError::Changed { .. })));
    assert_eq!(fs::read_to_string(project.path("compose.yaml")).unwrap(), changed);
}

#[test]
fn image_of_another_repository_replaces_the_whole_reference_and_never_a_tag_alone() {
    let project = Project::new(&[("compose.yaml", "services:\n  s:\n    image: up/f:v1 # as it was\n")]);
    let edits = rewrite::set_image(&project.load().unwrap(), &["s"], &image("our/f:2")).unwrap();
    let read = || fs::read_to_string(project.path("compose.yaml")).unwrap();
    assert_eq!(read(), "services:\n  s:\n    image: our/f:2 # as it was\n");
    rewrite::undo(&edits).unwrap();
    assert_eq!(read(), "services:\n  s:\n    image: up/f:v1 # as it was\n");

    let project =
        Project::new(&[("compose.yaml", "services:\n  s:\n    image: up/f:${TAG}\n"), (".env", "TAG=v1\n")]);
    let error = rewrite::set_image(&project.load().unwrap(), &["s"], &image("our/f:2")).unwrap_err();
    assert!(matches!(error, RewriteError::OtherRepository { .. }), "{error}");
}

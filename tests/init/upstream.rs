//! With upstream's own configuration, SQL and templates, where they lie beside the project.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::beside;
use crate::container::Container;
use crate::server::Server;

/// A release's configuration and SQL, with the web's SQL beside it, as an image of it has them.
pub fn container_with_release(
    server: &Server,
    release: &std::path::Path,
    web: &std::path::Path,
) -> Container {
    let container = Container::framework(server);
    let deploy = container.path("usr/local/tars/cpp/deploy");
    fs::remove_dir_all(&deploy).unwrap();
    fs::create_dir_all(deploy.join("framework/sql")).unwrap();
    let unpack = |archive: &std::path::Path, into: &std::path::Path, strip: &str, what: &str| {
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(archive).arg("-C").arg(into).args([strip, "--wildcards", what]);
        assert!(tar.status().unwrap().success());
    };
    unpack(release, &deploy, "--strip-components=1", "deploy/framework/*");
    // `deploy` has the framework's files alone: those of the web come with the web.
    unpack(web, &container.path("usr/local/app"), "--strip-components=0", "web/sql/*.sql");
    container
}

fn container_with_upstreams_data(server: &Server, upstream: &std::path::Path) -> Container {
    let container = Container::framework(server);
    let deploy = container.path("usr/local/tars/cpp/deploy/framework");
    fs::remove_dir_all(&deploy).unwrap();
    fs::create_dir_all(&deploy).unwrap();
    for folder in ["conf", "sql"] {
        let copied = Command::new("cp").arg("-r").arg(upstream.join(folder)).arg(&deploy).status().unwrap();
        assert!(copied.success());
    }
    let opened = Command::new("chmod").args(["-R", "u+w"]).arg(&deploy).status().unwrap();
    assert!(opened.success());
    container
}

#[test]
fn upstreams_sql_and_templates_install_a_real_server() {
    let Some(upstream) = beside::folder("framework", "upstreams_sql_and_templates_install_a_real_server")
    else {
        return;
    };
    let server = Server::start();
    let mut container = container_with_upstreams_data(&server, &upstream);
    let log = container.run_once();
    assert!(log.lines().count() <= 25, "{log}");
    let tables: Vec<(String, u64)> = server.rows(
        "SELECT table_schema, COUNT(*) FROM information_schema.tables WHERE table_schema LIKE 'db\\_%' GROUP BY 1 \
         ORDER BY 1",
    );
    let tables: Vec<_> = tables.iter().map(|(schema, count)| (schema.as_str(), *count)).collect();
    assert_eq!(
        tables,
        [("db_base", 6), ("db_cache_web", 11), ("db_tars", 19), ("db_tars_web", 6), ("db_user_system", 5)]
    );
    let templates = fs::read_dir(upstream.join("sql/template")).unwrap().count() as u64;
    assert_eq!(server.number("SELECT COUNT(*) FROM db_tars.t_profile_template"), templates);
    let children: Vec<String> = server.rows(
        "SELECT template_name FROM db_tars.t_profile_template WHERE parents_name = 'tars.framework-db' ORDER BY 1",
    );
    assert_eq!(children.len(), 8, "{children:?}");
    let marks = "SELECT COUNT(*) FROM db_tars.t_profile_template WHERE profile LIKE '%TARS_PATH%' OR profile LIKE \
                 '%UPLOAD_PATH%' OR profile LIKE '%db.tars.com%' OR profile LIKE '%tars2015%'";
    assert_eq!(server.number(marks), 0);
    let comment: String = server
        .rows("SELECT table_comment FROM information_schema.tables WHERE table_name = 't_application'")
        .remove(0);
    assert_eq!(comment, "应用");
    for column in ["run_type", "base_image_id", "sha"] {
        let query = format!(
            "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 't_server_conf' AND column_name = '{column}'"
        );
        assert_eq!(server.number(&query), 1, "{column}");
    }
}

#[test]
fn upstreams_rows_and_configuration_carry_this_node_and_no_placeholder() {
    let Some(upstream) =
        beside::folder("framework", "upstreams_rows_and_configuration_carry_this_node_and_no_placeholder")
    else {
        return;
    };
    let server = Server::start();
    let mut container = container_with_upstreams_data(&server, &upstream);
    container.run_once();
    let address = container.address.clone();
    let rows = format!("SELECT COUNT(*) FROM db_tars.t_server_conf WHERE node_name = '{address}'");
    assert_eq!(server.number(&rows), 10);
    let endpoints =
        format!("SELECT COUNT(*) FROM db_tars.t_adapter_conf WHERE endpoint LIKE 'tcp -h {address} %'");
    assert_eq!(server.number(&endpoints), 12, "tarsregistry has two, tarslog a second that is not pinged");
    let node: Vec<(String, String)> = server.rows("SELECT node_name, node_obj FROM db_tars.t_node_info");
    assert_eq!(
        node,
        [(address.clone(), format!("tars.tarsnode.NodeObj@tcp -h {address} -p 19385 -t 60000"))]
    );
    for service in tarsup::tars::Service::ALL {
        let path = container.path(&format!("usr/local/app/tars/{service}/conf/tars.{service}.config.conf"));
        let text = fs::read_to_string(&path).unwrap();
        for mark in ["tars.com", "registryAddress", "TARS_PATH", "UPLOAD_PATH", "tars2015", "dbuser=tars\n"] {
            assert!(!text.contains(mark), "{service} still has {mark}");
        }
    }
    let before = server.everything();
    container.run_once();
    assert_eq!(server.everything(), before, "a second start changed something");
}

#[test]
fn upload_path_is_the_folder_above_patchs_and_what_an_earlier_version_rendered_is_mended() {
    const NAME: &str =
        "upload_path_is_the_folder_above_patchs_and_what_an_earlier_version_rendered_is_mended";
    let Some(upstream) = beside::folder("framework", NAME) else { return };
    let server = Server::start();
    let mut container = container_with_upstreams_data(&server, &upstream);
    container.run_once();
    let patchs = container.path("usr/local/app/patchs").display().to_string();
    let conf = container.path("usr/local/app/tars/tarspatch/conf/tars.tarspatch.config.conf");
    let profile = || {
        server.rows::<String>(
            "SELECT profile FROM db_tars.t_profile_template WHERE template_name = 'tars.tarspatch'",
        )
    };
    let right = profile().remove(0);
    for text in [&right, &fs::read_to_string(conf).unwrap()] {
        assert!(text.contains(&format!("directory={patchs}/tars\n")), "{text}");
        assert!(text.contains(&format!("uploadDirectory={patchs}/tars.upload\n")), "{text}");
    }
    // As it stands in the databases that an earlier version installed, with an edit of an administrator beside it.
    let edited =
        right.replace("size=", "size=7").replace(&format!("={patchs}/"), &format!("={patchs}/patchs/"));
    assert_ne!(edited.replace("size=7", "size="), right);
    let set = |text: &str| {
        format!(
            "UPDATE db_tars.t_profile_template SET profile = '{text}' WHERE template_name = 'tars.tarspatch'"
        )
    };
    server.run(&[&set(&edited)]);
    let log = container.run_once();
    assert!(log.contains("is mended in tars.tarspatch"), "{log}");
    assert_eq!(profile(), [right.replace("size=", "size=7")]);
}

#[test]
fn each_release_installs_with_the_webs_sql_and_the_newer_one_completes_the_older() {
    let (Some(old), Some(new), Some(web)) = (
        beside::folder(
            "real/v2.4.17/deploy.tgz",
            "each_release_installs_with_the_webs_sql_and_the_newer_one_completes_the_older",
        ),
        beside::folder(
            "real/v3.0.17/deploy.tgz",
            "each_release_installs_with_the_webs_sql_and_the_newer_one_completes_the_older",
        ),
        beside::folder(
            "real/web.tgz",
            "each_release_installs_with_the_webs_sql_and_the_newer_one_completes_the_older",
        ),
    ) else {
        return;
    };
    let tables = "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_schema LIKE \
                  'db\\_%' ORDER BY 1";
    let migrated = |server: &Server, release: &std::path::Path| {
        let container = container_with_release(server, release, &web);
        let migrated = container.call(&["migrate"]);
        assert_eq!(migrated.status.code(), Some(0), "{}", String::from_utf8_lossy(&migrated.stderr));
    };
    let (fresh, grown) = (Server::start(), Server::start());
    migrated(&fresh, &new);
    migrated(&grown, &old);
    let before = grown.rows::<String>(tables);
    assert!(!before.contains(&"db_tars.t_base_image".to_owned()));
    let columns = |server: &Server, what: &str| -> BTreeSet<String> {
        let query = format!(
            "SELECT CONCAT_WS(' ', table_schema, table_name, {what}) FROM information_schema.columns WHERE table_schema \
             LIKE 'db\\_%'"
        );
        server.rows(&query).into_iter().collect()
    };
    let whole = "column_name, column_type, is_nullable, COALESCE(column_default, '-')";
    let keys = |server: &Server| -> BTreeSet<String> {
        let query = "SELECT CONCAT_WS(' ', table_schema, table_name, non_unique, GROUP_CONCAT(column_name ORDER BY \
                     seq_in_index)) FROM information_schema.statistics WHERE table_schema LIKE 'db\\_%' \
                     GROUP BY table_schema, table_name, index_name, non_unique";
        server.rows(query).into_iter().collect()
    };
    let (columns_before, keys_before) = (columns(&grown, whole), keys(&grown));
    migrated(&grown, &new);
    let is_superset = |of: &BTreeSet<String>, what: &BTreeSet<String>, words: &str| {
        let lacks: Vec<_> = what.difference(of).collect();
        assert!(lacks.is_empty(), "{words}: {lacks:#?}");
    };
    is_superset(&columns(&grown, whole), &columns(&fresh, whole), "a fresh installation has, this one not");
    is_superset(&keys(&grown), &keys(&fresh), "keys of a fresh installation");
    is_superset(&columns(&grown, whole), &columns_before, "was there before");
    is_superset(&keys(&grown), &keys_before, "keys that were there before");
    let after = grown.rows::<String>(tables);
    assert!(before.iter().all(|table| after.contains(table)), "{after:?}");
    assert!(fresh.rows::<String>(tables).iter().all(|table| after.contains(table)), "{after:?}");
    for server in [&grown, &fresh] {
        for column in ["run_type", "base_image_id", "sha"] {
            let query = format!(
                "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 't_server_conf' AND column_name = \
                 '{column}'"
            );
            assert_eq!(server.number(&query), 1, "{column}");
        }
    }
    let before = grown.everything();
    migrated(&grown, &new);
    assert_eq!(grown.everything(), before);
}

/// `tars-init migrate` of a release, and the document that it ends with.
fn migrate(server: &Server, release: &std::path::Path, web: &std::path::Path) -> serde_json::Value {
    let container = container_with_release(server, release, web);
    let dry = container.call(&["migrate", "--dry-run"]);
    let migrated = container.call(&["migrate"]);
    assert_eq!(migrated.status.code(), Some(0), "{}", String::from_utf8_lossy(&migrated.stderr));
    let document = |output: &std::process::Output| -> serde_json::Value {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(said.lines().last().unwrap()).unwrap()
    };
    let mut told = document(&dry);
    told.as_object_mut().unwrap().remove("dry_run");
    assert_eq!(told, document(&migrated), "a dry run tells what the run does then");
    told
}

fn names(list: &serde_json::Value) -> Vec<String> {
    let item = |item: &serde_json::Value| {
        let whole = || format!("{} {}", item["template"].as_str().unwrap(), item["key"].as_str().unwrap());
        item.as_str().map_or_else(whole, str::to_owned)
    };
    list.as_array().unwrap().iter().map(item).collect()
}

#[test]
fn templates_of_2_4_17_follow_3_0_17_and_back_key_by_key() {
    const NAME: &str = "templates_of_2_4_17_follow_3_0_17_and_back_key_by_key";
    const TIMEOUT: &str = "tars/application/server/activating-timeout";
    let (Some(old), Some(new), Some(web)) = (
        beside::folder("real/v2.4.17/deploy.tgz", NAME),
        beside::folder("real/v3.0.17/deploy.tgz", NAME),
        beside::folder("real/web.tgz", NAME),
    ) else {
        return;
    };
    let server = Server::start();
    migrate(&server, &old, &web);
    // As upstream's installer leaves it: nothing says what was shipped.
    server.run(&[
        "DROP TABLE tarsup.t_template",
        "INSERT INTO db_tars.t_server_conf (application, server_name, node_name, template_name) VALUES \
         ('Shop', 'Cart', '10.0.0.1', 'tars.go.default')",
    ]);
    let value = |template: &str, key: &str| {
        let query =
            format!("SELECT profile FROM db_tars.t_profile_template WHERE template_name = '{template}'");
        let profile = server.rows::<String>(&query).remove(0);
        let path: Vec<String> = key.split('/').map(str::to_owned).collect();
        tarsup::tars::conf::pairs(&profile).unwrap().get(&path).cloned()
    };
    let report = migrate(&server, &new, &web);
    let added = names(&report["templates"]["keys"]);
    for (template, key) in [
        ("tars.default", "/nodename"),
        ("tars.tarsAdminRegistry", "/RegistryObjName"),
        ("tars.tarsnode", "/adminObj"),
        ("tars.tarsnode", "/container/socket"),
        ("tars.tarsregistry", "/container/timeout"),
    ] {
        let is_it = |added: &&String| added.starts_with(&format!("{template} ")) && added.ends_with(key);
        assert_eq!(added.iter().filter(is_it).count(), 1, "{template} {key} is not in {added:#?}");
    }
    // A business service inherits it: it waits.
    assert_eq!(names(&report["templates"]["waiting"]), [format!("tars.default {TIMEOUT}")], "{report:#}");
    assert_eq!(report["templates"]["waiting"][0]["services"], serde_json::json!(["Shop.Cart"]));
    assert_eq!(value("tars.default", TIMEOUT).as_deref(), Some("10000"));
    // Until a person takes it, or keeps it.
    let (newer, older) =
        (container_with_release(&server, &new, &web), container_with_release(&server, &old, &web));
    let asked = |container: &Container, words: &[&str]| -> serde_json::Value {
        let output = container.call(&[&["templates"], words].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(said.lines().last().unwrap()).unwrap()
    };
    let waiting = |container: &Container| names(&asked(container, &["--json"])["waiting"]);
    let (key, nothing) = (format!("tars.default {TIMEOUT}"), Vec::<String>::new());
    let before = server.everything();
    assert_eq!(waiting(&newer), std::slice::from_ref(&key));
    assert_eq!(server.everything(), before, "to show changes nothing");
    assert_eq!(names(&asked(&newer, &["take", "tars.default"])["changed"]), std::slice::from_ref(&key));
    assert_eq!(value("tars.default", TIMEOUT).as_deref(), Some("60000"));
    assert_eq!(waiting(&newer), nothing);
    assert_eq!(newer.call(&["templates", "take", "tars.nothing"]).status.code(), Some(78));
    // The older version would have the older value: with services that inherit it, it waits as well.
    assert_eq!(waiting(&older), [key]);
    asked(&older, &["keep", "tars.default"]);
    assert_eq!(waiting(&older), nothing);
    assert_eq!(value("tars.default", TIMEOUT).as_deref(), Some("60000"));
    // As it was.
    server.run(&[
        "UPDATE db_tars.t_profile_template SET profile = REPLACE(profile, 'activating-timeout=60000', \
         'activating-timeout=10000') WHERE template_name = 'tars.default'",
    ]);
    server.run(&["DROP TABLE tarsup.t_template"]);
    // Without it, it follows, and goes back with the version: once what was shipped is known, not otherwise edited.
    server.run(&["DELETE FROM db_tars.t_server_conf WHERE application = 'Shop'"]);
    let report = migrate(&server, &new, &web);
    assert_eq!(names(&report["templates"]["changed"]), [format!("tars.default {TIMEOUT}")], "{report:#}");
    assert_eq!(value("tars.default", TIMEOUT).as_deref(), Some("60000"));
    let again = migrate(&server, &new, &web);
    for list in ["keys", "changed", "conflicts", "waiting", "added"] {
        assert_eq!(names(&again["templates"][list]), Vec::<String>::new(), "{list}");
    }
    let back = migrate(&server, &old, &web);
    assert_eq!(names(&back["templates"]["changed"]), [format!("tars.default {TIMEOUT}")], "{back:#}");
    assert_eq!(value("tars.default", TIMEOUT).as_deref(), Some("10000"));
    // Both changed: it stays, and is named.
    server.run(&[
        "UPDATE db_tars.t_profile_template SET profile = REPLACE(profile, 'activating-timeout=10000', \
         'activating-timeout=12345') WHERE template_name = 'tars.default'",
    ]);
    let report = migrate(&server, &new, &web);
    assert_eq!(names(&report["templates"]["conflicts"]), [format!("tars.default {TIMEOUT}")], "{report:#}");
    assert_eq!(value("tars.default", TIMEOUT).as_deref(), Some("12345"));
}

#[test]
fn node_with_another_address_gets_its_rows_back_and_none_twice() {
    const NAME: &str = "node_with_another_address_gets_its_rows_back_and_none_twice";
    let Some(upstream) = beside::folder("framework", NAME) else { return };
    let server = Server::start();
    let mut container = container_with_upstreams_data(&server, &upstream);
    container.run_once();
    let old = container.address.clone();
    // What an administrator set and deployed there, and another node whose name begins alike.
    server.run(&[
        "UPDATE db_tars.t_server_conf SET setting_state = 'inactive' WHERE server_name = 'tarsstat'",
        &format!(
            "INSERT INTO db_tars.t_server_conf (application, server_name, node_name) VALUES ('Shop', 'Cart', '{old}'), \
             ('Shop', 'Cart', '{old}9')"
        ),
        &format!(
            "INSERT INTO db_tars.t_adapter_conf (application, server_name, node_name, adapter_name, endpoint) VALUES ('Shop', \
             'Cart', '{old}', 'a', 'tcp -t 60000 -p 9000 -h {old}'), ('Shop', 'Cart', '{old}9', 'a', 'tcp -h {old}9 -p 9000')"
        ),
    ]);
    let count = |table: &str, node: &str| {
        server.number(&format!("SELECT COUNT(*) FROM db_tars.{table} WHERE node_name = '{node}'"))
    };
    let before: Vec<u64> =
        ["t_server_conf", "t_adapter_conf", "t_node_info"].map(|table| count(table, &old)).into();
    // It comes back with another address, and is another node to the database. The old one seems to live a while yet.
    server.run(&["UPDATE db_tars.t_node_info SET last_heartbeat = NOW()"]);
    let new = "127.200.0.9";
    container.set("DOMAIN", new);
    let log = container.run_once();
    assert!(log.contains(&format!("tars-init readdress {old} {new}")), "{log}");
    assert!(
        !log.contains("as an administrator wants it"),
        "nobody stopped anything at the new address: {log}"
    );
    assert!(count("t_server_conf", new) > 0);
    let all = server.everything();
    let call = |words: &[&str]| container.call(&[&["readdress"], words].concat());
    assert_eq!(call(&[&old, new, "--dry-run"]).status.code(), Some(0));
    assert_eq!(server.everything(), all, "a dry run changes nothing");

    let moved = call(&[&old, new]);
    assert_eq!(moved.status.code(), Some(0), "{}", String::from_utf8_lossy(&moved.stderr));

    let after: Vec<u64> =
        ["t_server_conf", "t_adapter_conf", "t_node_info"].map(|table| count(table, new)).into();
    assert_eq!(after, before);
    for table in ["t_server_conf", "t_adapter_conf", "t_node_info"] {
        assert_eq!(count(table, &old), 0, "{table}");
    }
    let state = format!(
        "SELECT setting_state FROM db_tars.t_server_conf WHERE server_name = 'tarsstat' AND node_name = '{new}'"
    );
    assert_eq!(server.rows::<String>(&state), ["inactive"], "what was set under the old address counts");
    let endpoints: Vec<String> = server
        .rows("SELECT endpoint FROM db_tars.t_adapter_conf WHERE application = 'Shop' ORDER BY node_name");
    assert_eq!(endpoints.len(), 2);
    assert!(endpoints.contains(&format!("tcp -t 60000 -p 9000 -h {new}")), "{endpoints:?}");
    assert!(endpoints.contains(&format!("tcp -h {old}9 -p 9000")), "{endpoints:?}");
    let left_behind =
        format!("SELECT COUNT(*) FROM db_tars.t_adapter_conf WHERE CONCAT(endpoint, ' ') LIKE '%-h {old} %'");
    assert_eq!(server.number(&left_behind), 0);
    for words in [&[old.as_str(), new][..], &["a", "a"], &["a b", "c"]] {
        assert_ne!(call(words).status.code(), Some(0), "{words:?}");
    }
}

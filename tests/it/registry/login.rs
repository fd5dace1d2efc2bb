//! Who asks: tokens, passwords and helpers, shown to the registry alone and to nobody's eyes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::image::{Bench, document, refusal};
use super::stub::{Act, Asked, Kept, Stub};
use super::{MIB, assert_whole};

const PASSWORD: &str = "hunter2-secret";
/// `user:hunter2-secret`.
const BASIC: &str = "dXNlcjpodW50ZXIyLXNlY3JldA==";

/// Asks for the password with each request.
fn basic(asked: &Asked, _: &mut Kept) -> Option<Act> {
    let shown = asked.header("authorization") == Some(&format!("Basic {BASIC}"));
    let challenge = vec![("WWW-Authenticate", "Basic realm=\"a registry\"".to_owned())];
    (!shown).then(|| Act::Answer(401, challenge, Vec::new()))
}

/// A registry with tokens, each of which serves so many requests; which scopes were asked for.
fn with_tokens(serves: usize) -> (Stub, Arc<Mutex<Vec<String>>>) {
    let scopes: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noted, given) = (scopes.clone(), Mutex::new(Vec::new()));
    let stub = Stub::that(move |asked, kept| {
        let given: &mut Vec<(String, usize)> = &mut given.lock().unwrap();
        if asked.path == "/token" {
            if let Some(refused) = basic(asked, kept) {
                return Some(refused);
            }
            noted.lock().unwrap().push(asked.query.clone());
            let token = format!("t{}-secret", given.len());
            given.push((format!("Bearer {token}"), serves));
            return Some(Act::Answer(200, Vec::new(), format!("{{\"token\":\"{token}\"}}").into_bytes()));
        }
        let shown = asked.header("authorization").unwrap_or_default();
        if let Some((_, left)) = given.iter_mut().find(|(token, left)| token == shown && *left > 0) {
            *left -= 1;
            return None;
        }
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", asked.header("host").unwrap());
        Some(Act::Answer(401, vec![("WWW-Authenticate", realm)], Vec::new()))
    });
    (stub, scopes)
}

fn host(stub: &Stub) -> String {
    format!("127.0.0.1:{}", stub.port)
}

/// Runs it with every log on; what is printed holds no secret.
fn quiet(bench: &Bench, arguments: &[&str]) -> std::process::Output {
    let output =
        bench.command(arguments).args(["--json", "-vvv"]).env("TARSUP_LOG", "trace").output().unwrap();
    let printed =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for secret in [PASSWORD, BASIC, "-secret", "_state="] {
        assert!(!printed.contains(secret), "{secret} is printed:\n{printed}");
    }
    output
}

#[test]
fn password_of_dockers_configuration_is_shown_and_a_wrong_one_named() {
    let (stub, bench) = (Stub::that(basic), Bench::new(&[MIB, 10]));
    let message = refusal(&quiet(&bench, &["copy", "oci:image:1", &stub.name("a:1")]), 1);
    assert!(message.contains("wants a login") && message.contains("docker login 127.0.0.1"), "{message}");
    bench.logins(&json!({"auths": {host(&stub): {"username": "user", "password": "other"}}}));
    let message = refusal(&quiet(&bench, &["copy", "oci:image:1", &stub.name("a:1")]), 1);
    assert!(message.contains("does not accept the password of user"), "{message}");
    bench.logins(&json!({"auths": {format!("http://{}/v1/", host(&stub)): {"auth": BASIC}}}));
    document(&quiet(&bench, &["copy", "oci:image:1", &stub.name("a:1")]));
    assert_whole(&stub, &bench, "a", "1");
    bench.logins(&json!({"auths": {host(&stub): {"auth": "?"}}}));
    let message = refusal(&quiet(&bench, &["inspect", &stub.name("a:1")]), 2);
    assert!(message.contains("config.json cannot be used"), "{message}");
    fs::write(bench.path("home/.docker/config.json"), format!("{{\"auths\": {PASSWORD}")).unwrap();
    let message = refusal(&quiet(&bench, &["inspect", &stub.name("a:1")]), 2);
    assert!(message.contains("config.json cannot be used"), "{message}");
}

#[test]
fn token_is_asked_for_by_what_is_done_and_again_when_it_ends() {
    let (stub, scopes) = with_tokens(usize::MAX);
    let bench = Bench::new(&[MIB, 10]);
    bench.logins(&json!({"auths": {host(&stub): {"auth": BASIC}}}));
    document(&quiet(&bench, &["copy", "oci:image:1", &stub.name("a/b:1")]));
    assert_whole(&stub, &bench, "a/b", "1");
    let asked: Vec<String> = std::mem::take(&mut *scopes.lock().unwrap());
    assert!(asked.contains(&"service=s&scope=repository:a/b:pull,push".to_owned()), "{asked:?}");
    assert!(asked.len() == 1, "a token is kept: {asked:?}");
    document(&quiet(&bench, &["copy", &stub.name("a/b:1"), &stub.name("c:1")]));
    let asked = scopes.lock().unwrap().clone();
    let both = "service=s&scope=repository:c:pull,push&scope=repository:a/b:pull";
    assert!(asked.iter().any(|query| query == both), "{asked:?}");

    // In the middle of everything. A token that served is renewed as often as it takes, also by requests side by side.
    // Each of one's answers brings the image on, or uploads that share tokens would keep each other from their ends.
    for serves in [1, 2, 4, 6] {
        let (stub, _) = with_tokens(serves);
        bench.logins(&json!({"auths": {host(&stub): {"auth": BASIC}}}));
        let one = Bench::new(&[MIB, 10]);
        fs::create_dir_all(one.path("home")).unwrap();
        fs::rename(bench.path("home/.docker"), one.path("home/.docker")).unwrap();
        document(&quiet(&one, &["copy", "oci:image:1", &stub.name("a:1")]));
        assert_whole(&stub, &one, "a", "1");
    }
}

#[test]
fn wrong_password_for_a_token_is_named() {
    let (stub, _) = with_tokens(9);
    let bench = Bench::new(&[10]);
    bench.logins(&json!({"auths": {host(&stub): {"username": "user", "password": "other"}}}));
    let message = refusal(&quiet(&bench, &["copy", "oci:image:1", &stub.name("a:1")]), 1);
    assert!(message.contains("does not accept the password of user"), "{message}");
    let endless = Stub::that(|asked, _| {
        if asked.path == "/token" {
            return Some(Act::Endless);
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", asked.header("host").unwrap());
        Some(Act::Answer(401, vec![("WWW-Authenticate", realm)], Vec::new()))
    });
    let message = refusal(&quiet(&bench, &["copy", "oci:image:1", &endless.name("a:1")]), 2);
    assert!(message.contains("a token that is not what it should be"), "{message}");
}

#[test]
fn what_a_registry_repeats_of_a_login_is_not_quoted() {
    let told = |asked: &Asked| {
        let shown = asked.header("authorization").unwrap_or_default().to_owned();
        let message = format!("no: {shown} is user:{PASSWORD}");
        json!({"errors": [{"code": "DENIED", "message": message}]}).to_string().into_bytes()
    };
    let denied =
        move |asked: &Asked| (asked.method == "POST").then(|| Act::Answer(403, Vec::new(), told(asked)));
    let by_password = Stub::that(move |asked, kept| basic(asked, kept).or_else(|| denied(asked)));
    let by_token = Stub::that(move |asked, _| {
        if asked.path == "/token" {
            return Some(Act::Answer(200, Vec::new(), b"{\"token\":\"one-secret\"}".to_vec()));
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", asked.header("host").unwrap());
        match asked.header("authorization") {
            None => Some(Act::Answer(401, vec![("WWW-Authenticate", realm)], Vec::new())),
            Some(_) => denied(asked),
        }
    });
    for stub in [by_password, by_token] {
        let bench = Bench::new(&[10]);
        bench.logins(&json!({"auths": {host(&stub): {"auth": BASIC}}}));
        let message = refusal(&quiet(&bench, &["copy", "oci:image:1", &stub.name("a:1")]), 1);
        assert!(message.contains("DENIED, no: ") && message.contains("*** is user:***"), "{message}");
    }
}

#[test]
fn helper_is_asked_for_the_registry_and_its_answer_stays_with_it() {
    let (stub, bench) = (Stub::that(basic), Bench::new(&[10]));
    let helpers = bench.path("helpers");
    fs::create_dir(&helpers).unwrap();
    let helper = |script: &str| {
        let path = helpers.join("docker-credential-test");
        fs::write(
            &path,
            format!("#!/bin/sh\necho \"$*\" >>'{0}/asked'; cat >>'{0}/asked'\n{script}\n", helpers.display()),
        )
        .unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let path = format!("{}:{}", helpers.display(), std::env::var("PATH").unwrap());
    let run = |exit: i32| {
        let mut command = bench.command(&["copy", "oci:image:1", &stub.name("a:1"), "--json"]);
        let output = command.env("PATH", &path).env("TARSUP_LOG", "trace").output().unwrap();
        let printed =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!printed.contains(PASSWORD), "{printed}");
        assert_eq!(output.status.code(), Some(exit), "{printed}");
        printed
    };
    let answer = format!("echo '{{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"{PASSWORD}\"}}'");
    for config in [
        json!({"credHelpers": {host(&stub): "test"}}),
        json!({"credsStore": "test", "auths": {host(&stub): {}}}),
    ] {
        bench.logins(&config);
        helper(&answer);
        run(0);
        let asked = fs::read_to_string(helpers.join("asked")).unwrap();
        assert!(asked.contains(&format!("get\n{}", host(&stub))), "{asked}");
        helper(&format!("echo {PASSWORD}; echo {PASSWORD} >&2"));
        assert!(run(2).contains("did not print what a credential helper prints"));
        helper(&format!("echo {PASSWORD}; exit 3"));
        assert!(run(2).contains("it ended with exit status: 3"));
        helper("echo 'credentials not found in native keychain'; exit 1");
        assert!(run(1).contains("wants a login"));
    }
    bench.logins(&json!({"credHelpers": {host(&stub): "absent"}}));
    assert!(run(2).contains("docker-credential-absent cannot be used"));
    bench.logins(&json!({"credHelpers": {host(&stub): "../helpers/x"}}));
    assert!(run(2).contains("named without its path"));
}

#[test]
fn nobody_but_the_registry_is_shown_who_asks() {
    let bench = Bench::new(&[MIB]);
    let elsewhere = Stub::honest();
    let (port, layer) = (elsewhere.port, bench.layers[0].to_string());
    let stub = Stub::that(move |asked, kept| {
        basic(asked, kept).or_else(|| {
            let place = format!("http://127.0.0.1:{port}{}?_state=x-secret", asked.path);
            asked.is("GET", &layer).then(|| Act::Answer(307, vec![("Location", place)], Vec::new()))
        })
    });
    bench.logins(&json!({"auths": {host(&stub): {"auth": BASIC}}}));
    document(&quiet(&bench, &["copy", "oci:image:1", &stub.name("a:1")]));
    bench.json(&["copy", "oci:image:1", &elsewhere.name("a:1")]);
    document(&quiet(&bench, &["copy", &stub.name("a:1"), "oci:back:1"]));
    let asked = elsewhere.kept.lock().unwrap().asked.clone();
    assert!(asked.iter().any(|asked| asked.query.contains("_state=x")), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");

    // Round and round.
    let circle = Stub::that(|asked, _| {
        asked
            .is("GET", "/manifests/")
            .then(|| Act::Answer(307, vec![("Location", asked.path.clone())], Vec::new()))
    });
    let message = bench.refused(&["inspect", &circle.name("a:1")], 2);
    assert!(message.contains("leads on and on"), "{message}");
}

//! The commands of contract section 2, on the real binary.

use std::path::Path;
use std::process::{Command, Output};

use recoup::config::Config;

const BINARY: &str = env!("CARGO_BIN_EXE_recoup");

fn recoup(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    command.current_dir(folder).args(arguments).env_clear().envs(environment.iter().copied());
    command.output().unwrap()
}

#[track_caller]
fn expect(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout}\n{stderr}");
    (stdout, stderr)
}

#[test]
fn serve_without_configuration_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (_, stderr) = expect(&recoup(folder.path(), &["serve"], &[]), 2);
    for needed in [
        "provider.api_key",
        "webhook.secrets",
        "api.key",
        "recoup init",
        "RECOUP_PROVIDER__API_KEY",
        "RECOUP_WEBHOOK__SECRETS",
        "RECOUP_API__KEY",
    ] {
        assert!(stderr.contains(needed), "{needed} is not in {stderr}");
    }
    assert!(!folder.path().join("recoup.db").exists(), "nothing was created");
}

#[test]
fn init_writes_fresh_secrets_once() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (stdout, _) = expect(&recoup(folder.path(), &["init"], &[]), 0);
    let file = folder.path().join("config.toml");
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, stderr) = expect(&recoup(folder.path(), &["init"], &[]), 1);
    assert!(stderr.contains("config.toml exists already"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written, "not overwritten");
    let secret = written.lines().find_map(|line| line.strip_prefix("key = \"")).unwrap().split('"').next().unwrap();
    assert!(!stdout.contains(secret));
    let (shown, _) = expect(&recoup(folder.path(), &["config", "check"], &[]), 0);
    assert!(shown.contains("***") && !shown.contains(secret), "{shown}");
    let (_, none) = expect(&recoup(folder.path(), &["callback-url", "kling/o3-video"], &[]), 2);
    assert!(none.contains("server.public_url is empty"), "{none}");
    let public = [("RECOUP_SERVER__PUBLIC_URL", "https://hooks.example.com")];
    let (url, _) = expect(&recoup(folder.path(), &["callback-url", "kling/o3-video"], &public), 0);
    assert!(url.starts_with("https://hooks.example.com/webhooks/kling/o3-video/any."), "{url}");
    let other = ["init", "--config", "other.toml", "--public-url", "https://hooks.example.com"];
    let (stdout, _) = expect(&recoup(folder.path(), &other, &[]), 0);
    assert!(stdout.contains("Lead https://hooks.example.com here"), "{stdout}");
    let (shown, _) = expect(&recoup(folder.path(), &["config", "check", "--config", "other.toml"], &[]), 0);
    assert!(shown.contains("public_url = \"https://hooks.example.com/\""), "{shown}");
    let wrong = ["serve", "--config", "other.toml", "--public-url", "http://127.0.0.1:8080"];
    let (_, stderr) = expect(&recoup(folder.path(), &wrong, &[("RECOUP_PROVIDER__API_KEY", "a key")]), 2);
    assert!(stderr.contains("server.public_url"), "{stderr}");
    let (_, stderr) = expect(&recoup(folder.path(), &["callback-url", "kling/o9"], &[]), 2);
    assert!(stderr.contains("kling/o1-video"), "{stderr}");
}

#[test]
fn every_wrong_key_or_value_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (toml, key) in [
        ("[server]\nlisten = \"here\"", "server.listen"),
        ("[server]\nport = 1", "server.port"),
        ("[sever]\nlisten = \"127.0.0.1:1\"", "sever"),
        ("[server]\nmax_connections = \"many\"", "server.max_connections"),
        ("[server]\nmax_connections = 0", "server.max_connections"),
        ("[server]\npublic_url = \"ftp://x\"", "server.public_url"),
        ("[server]\nadmin_listen = \"somewhere\"", "server.admin_listen"),
        ("[server]\nshutdown_timeout = 25", "server.shutdown_timeout"),
        ("[database]\nurl = \"postgres://x\"", "database.url"),
        ("[provider]\nbase_url = \"https://x/?a=b\"", "provider.base_url"),
        ("[provider]\nstatus_checks_per_minute = 0", "provider.status_checks_per_minute"),
        ("[webhook]\nsecrets = [\"\"]", "webhook.secrets[0]"),
        ("[webhook]\nsecrets = \"not a list\"", "webhook.secrets"),
        ("[webhook]\nconfirm = \"maybe\"", "webhook.confirm"),
        ("[webhook]\nmax_body = \"big\"", "webhook.max_body"),
        ("[webhook]\nallow_ips = [\"300.0.0.0/8\"]", "webhook.allow_ips"),
        ("[api]\nkey = 7", "api.key"),
        ("[[api.keys]]\nname = \"a\"\nsecret = \"long enough to be one\"\nscopes = [\"all\"]", "api.keys[0].scopes"),
        ("[[api.keys]]\nname = \"a\"\nscopes = [\"read\"]", "api.keys[0]"),
        ("[reconcile]\ngrace = \"soon\"", "reconcile.grace"),
        ("[reconcile]\nrecheck = []", "reconcile.recheck"),
        ("[reconcile]\nnot_found_recheck = \"0s\"", "reconcile.not_found_recheck"),
        ("[reconcile]\ngive_up_after = \"0s\"", "reconcile.give_up_after"),
        ("[reconcile]\nenabled = \"perhaps\"", "reconcile.enabled"),
        ("[[events.endpoints]]\nurl = \"http://x\"\nsecret = \"whsec_x\"", "events.endpoints[0].url"),
        ("[[events.endpoints]]\nurl = \"https://x\"\nsecret = \"plain\"", "events.endpoints[0].secret"),
        ("[retention]\npayloads = -1", "retention.payloads"),
        ("[expected.\"kling/o9\"]\nx = {}", "kling/o9"),
        ("[expected.\"kling/o3-video\"]\nkling_o3 = { \"5\" = [\"3m\", \"2m\"] }", "kling_o3"),
        ("[expected.\"kling/o3-video\"]\nkling_o3 = { five = [\"2m\", \"3m\"] }", "five"),
        ("[log]\nformat = \"xml\"", "log.format"),
        ("[log]\nlevel = \"lo=ud=x\"", "log.level"),
        ("[log]\nlevel = \"loud\"", "log.level"),
        ("server = 1", "server"),
        ("[server", "line 1"),
    ] {
        let file = folder.path().join("wrong.toml");
        std::fs::write(&file, toml).unwrap();
        let (_, stderr) = expect(&recoup(folder.path(), &["config", "check", "--config", "wrong.toml"], &[]), 2);
        assert!(stderr.contains(key), "{key} is not named for {toml}: {stderr}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), "[server]\nmax_connections = 0\n[reconcile]\nrecheck = []")
        .unwrap();
    let (_, stderr) = expect(&recoup(folder.path(), &["config", "check"], &[]), 2);
    assert!(stderr.contains("server.max_connections") && stderr.contains("reconcile.recheck"), "{stderr}");
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let toml = "[api]\nkey = \"short\"\n[provider]\nstatus_checks_per_minute = 600\n[reconcile]\nenabled = false";
    std::fs::write(folder.path().join("config.toml"), toml).unwrap();
    let (_, stderr) = expect(&recoup(folder.path(), &["config", "check"], &[]), 0);
    for key in ["api.key", "provider.status_checks_per_minute", "reconcile.enabled"] {
        assert!(stderr.contains(&format!("warning: {key}")), "{key}: {stderr}");
    }
}

#[test]
fn the_environment_overrides_the_file_and_is_checked_as_strictly() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), "[server]\nlisten = \"127.0.0.1:1111\"").unwrap();
    let check = |environment: &[(&str, &str)]| recoup(folder.path(), &["config", "check"], environment);
    let (shown, _) = expect(&check(&[("RECOUP_SERVER__LISTEN", "127.0.0.1:2222")]), 0);
    assert!(shown.contains("127.0.0.1:2222"), "{shown}");
    for (name, value, key) in [
        ("RECOUP_SERVER__PORT", "1", "server.port"),
        ("RECOUP_SERVER__MAX_CONNECTIONS", "many", "server.max_connections"),
        ("RECOUP_RECONCILE__ENABLED", "perhaps", "reconcile.enabled"),
        ("RECOUP_PROVIDER_API_KEY", "x", "RECOUP_PROVIDER__API_KEY"),
        ("RECOUP_NOWHERE__KEY", "x", "nowhere"),
    ] {
        let (_, stderr) = expect(&check(&[(name, value)]), 2);
        assert!(stderr.contains(key), "{name}: {stderr}");
    }
    // What a container platform sets by itself is not ours to refuse.
    expect(&check(&[("RECOUP_PORT", "tcp://10.0.0.1:8080"), ("RECOUP_SERVICE_HOST", "10.0.0.1")]), 0);
}

#[test]
fn secrets_can_be_read_from_files_and_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("api"), "0012300000000000e5\n").unwrap();
    std::fs::write(path("secrets"), "the first secret of all\nthe second secret of all\n\n").unwrap();
    let load = |environment: &[(&str, String)]| {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let empty = folder.path().join("empty.toml");
        std::fs::write(&empty, "").unwrap();
        Config::load(Some(&empty), environment)
    };
    let config = load(&[("RECOUP_API__KEY_FILE", path("api")), ("RECOUP_WEBHOOK__SECRETS_FILE", path("secrets"))]);
    let config = config.unwrap().config;
    assert_eq!(config.api.key.expose(), "0012300000000000e5");
    let secrets: Vec<_> = config.webhook.secrets.iter().map(recoup::secret::Secret::expose).collect();
    assert_eq!(secrets, ["the first secret of all", "the second secret of all"]);
    let signing = |name| load(&[(name, path("secrets"))]).unwrap().config.webhook;
    let several = signing("RECOUP_WEBHOOK__PROVIDER_SECRETS_FILE");
    assert_eq!(several.signing_secrets().collect::<Vec<_>>(), ["the first secret of all", "the second secret of all"]);
    let one = load(&[("RECOUP_WEBHOOK__PROVIDER_SECRET_FILE", path("api"))]).unwrap().config.webhook;
    assert_eq!(one.signing_secrets().collect::<Vec<_>>(), ["0012300000000000e5"]);
    assert!(!serde_json::to_string(&one).unwrap().contains("00123"), "masked");
    let either = load(&[
        ("RECOUP_WEBHOOK__PROVIDER_SECRET", "one of the provider's".to_owned()),
        ("RECOUP_WEBHOOK__PROVIDER_SECRETS", "another of them,and a third".to_owned()),
    ]);
    assert!(either.unwrap_err().to_string().starts_with("webhook.provider_secret: give either"));
    let both = load(&[("RECOUP_API__KEY_FILE", path("api")), ("RECOUP_API__KEY", "another long key here".to_owned())]);
    assert!(both.unwrap_err().to_string().contains("api.key_file"));
    let missing = load(&[("RECOUP_PROVIDER__API_KEY_FILE", path("nothing"))]).unwrap_err().to_string();
    assert!(missing.contains("provider.api_key_file") && missing.contains("nothing"), "{missing}");
    let plain = load(&[("RECOUP_PROVIDER__API_KEY", "00123".to_owned())]).unwrap().config;
    assert_eq!(plain.provider.api_key.expose(), "00123");
}

#[test]
fn the_example_is_complete_and_holds_the_defaults() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml");
    let loaded = Config::load(Some(Path::new(example)), []).unwrap();
    assert_eq!(loaded.config, Config::default());
    let text = std::fs::read_to_string(example).unwrap();
    let shown = toml_keys(&Config::default());
    for key in shown {
        assert!(text.contains(&format!("{key} = ")), "{key} is missing in config.example.toml");
    }
}

fn toml_keys(config: &Config) -> Vec<String> {
    let value = serde_json::to_value(config).unwrap();
    let sections = value.as_object().unwrap().values().filter_map(serde_json::Value::as_object);
    sections.flat_map(|section| section.keys().cloned()).filter(|key| key != "keys" && key != "endpoints").collect()
}

#[test]
fn bad_usage_exits_with_two_and_help_with_zero() {
    let folder = tempfile::tempdir().unwrap();
    expect(&recoup(folder.path(), &["fly"], &[]), 2);
    expect(&recoup(folder.path(), &["demo", "--lose", "150"], &[]), 2);
    let (help, _) = expect(&recoup(folder.path(), &["--help"], &[]), 0);
    for command in ["serve", "init", "demo", "sandbox", "config", "callback-url", "backup", "health"] {
        assert!(help.contains(command), "{command} is not in the help");
    }
    expect(&recoup(folder.path(), &["health", "--url", "http://127.0.0.1:1"], &[]), 1);
}

#[test]
fn the_demo_accounts_for_everything_and_says_the_same_for_the_same_seed() {
    let folder = tempfile::tempdir().unwrap();
    let demo = |seed: &str| {
        let arguments = ["demo", "--generations", "8", "--lose", "50", "--seed", seed, "--exit"];
        let (stdout, _) = expect(&recoup(folder.path(), &arguments, &[]), 0);
        assert!(stdout.contains("Every one of the 8 generations is accounted for."), "{stdout}");
        assert!(stdout.contains("recovered by checks"), "{stdout}");
        let mut lines: Vec<_> = stdout.lines().filter(|line| line.contains(" s  ")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let first = demo("7");
    assert_eq!(first.iter().filter(|line| line.contains("recovered")).count(), 4);
    assert_eq!(first, demo("7"));
    assert!(folder.path().read_dir().unwrap().next().is_none(), "it leaves nothing behind");
}

//! What people and programs are told on the command line: the real binary against a running service.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use recoup::sandbox::{Fate, Plan};
use serde_json::{Value, json};

use crate::support::{Bought, KEY, World, failed, text};

/// Text that would do harm on a terminal: it clears the screen, sets the title, turns the direction of reading, hides.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;owned\u{7}b\u{9b}31mc\u{202e}d\u{200b}e\r\nf\u{7f}";

fn command(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recoup"));
    command.args(arguments).args(["--url", &world.url]).current_dir(world.folder.path());
    command.env_clear().env("RECOUP_API__KEY", KEY);
    command
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap()).await.unwrap()
}

/// What a command says, which has to end with `code`.
async fn said(world: &World, arguments: &[&str], code: i32) -> (String, String) {
    let output = output(command(world, arguments)).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}\n{stderr}");
    (stdout, stderr)
}

/// One that completed, one that failed, one that is stuck; the time is twenty minutes after they were bought.
async fn three(world: &World) -> [Bought; 3] {
    let extra = |user: &str| json!({"metadata": {"user": user}, "prompt": "a paper boat"});
    let completed = world.buy_with(Plan::completed(), extra("1")).await;
    let refused = world.buy_with(Plan::failed("CONTENT_POLICY_VIOLATION"), extra("2")).await;
    let endless = Plan { fate: Fate::NeverEnds, ..Plan::completed() };
    let stuck = world.buy_with(endless, extra("2")).await;
    for _ in 0..40 {
        world.advance_s(30).await;
    }
    [completed, refused, stuck]
}

#[tokio::test]
async fn status_says_in_ten_lines_how_it_is_and_whom_it_needs() {
    let world = World::new().await;
    let version = env!("CARGO_PKG_VERSION");
    let (stdout, _) = said(&world, &["status"], 0).await;
    let well = format!(
        "recoup {version} at {}: ready
at risk        nothing
open           0, 0 overdue
last webhook   none yet
reads          0 of 48 in the last minute; nothing waits
events         0 pending, 0 dead
",
        world.url
    );
    assert_eq!(stdout, well);
    three(&world).await;
    let (stdout, _) = said(&world, &["status"], 1).await;
    let needed = format!(
        "recoup {version} at {}: ready
at risk        $0.15 in 1 generation: 1 stuck $0.15
open           1, 0 overdue
webhooks       kling/o3-video: 2 arrived, 0 missed, 0 late; 0 % of the last 2 missed
last webhook   17 min ago
reads          0 of 48 in the last minute; nothing waits
events         0 pending, 0 dead
! 1 generation needs a person: recoup generations --attention any
",
        world.url
    );
    assert_eq!(stdout, needed);
    let (stdout, _) = said(&world, &["status", "--json"], 1).await;
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(shown["well"], false);
    assert_eq!(shown["ready"]["status"], "ready");
    assert_eq!(shown["stats"]["generations"]["at_risk_by"], json!({"stuck": {"count": 1, "amount": "0.1500"}}));
}

#[tokio::test]
async fn watching_goes_on_until_interrupted() {
    let world = World::new().await;
    let mut watch = command(&world, &["status", "--watch", "--json"]);
    tokio::task::spawn_blocking(move || {
        let mut child = watch.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"well\":true"), "{line}");
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn generations_are_listed_and_filtered_as_the_api_does() {
    let world = World::new().await;
    assert_eq!(said(&world, &["generations"], 0).await.0, "There is no such generation.\n");
    let [completed, refused, stuck] = three(&world).await;
    let (stdout, _) = said(&world, &["generations", "--order", "asc"], 0).await;
    // The age is counted by the real clock.
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0].join(" "), "id status attention model s price credits age error");
    assert_eq!(rows[1][..7], [&completed.id, "completed", "-", "kling_o3", "5", "0.15", "delivered"]);
    assert_eq!(rows[2][..7], [&refused.id, "failed", "-", "kling_o3", "5", "0.15", "refunded"]);
    assert_eq!(*rows[2].last().unwrap(), "CONTENT_POLICY_VIOLATION");
    assert_eq!(rows[3][..7], [&stuck.id, "processing", "stuck", "kling_o3", "5", "0.15", "at_risk"]);
    let column = |name: &str| stdout.lines().next().unwrap().find(name).unwrap();
    assert!(stdout.lines().skip(1).all(|line| line.as_bytes()[column("status") - 1] == b' '), "{stdout}");

    let ids = async |arguments: &[&str]| {
        let (stdout, _) = said(&world, &[&["generations", "--json", "--order", "asc"], arguments].concat(), 0).await;
        let id = |line: &str| text(&serde_json::from_str::<Value>(line).unwrap()["id"]);
        stdout.lines().map(id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&[]).await, [&*completed.id, &refused.id, &stuck.id]);
    assert_eq!(ids(&["--status", "failed", "--status", "completed"]).await, [&*completed.id, &refused.id]);
    assert_eq!(ids(&["--attention", "any"]).await, [&*stuck.id]);
    assert_eq!(ids(&["--credits", "delivered"]).await, [&*completed.id]);
    assert_eq!(ids(&["--error-code", "CONTENT_POLICY_VIOLATION"]).await, [&*refused.id]);
    assert_eq!(ids(&["--metadata", "user=2", "--source", "webhook"]).await, [&*refused.id]);
    assert_eq!(ids(&["--family", "kling/o3-video", "--model", "kling_o3", "--all"]).await.len(), 3);
    assert_eq!(ids(&["--created-after", "2026-11-23T10:00:01Z"]).await, Vec::<String>::new());
    assert_eq!(ids(&["--created-before", "2026-11-23T10:00:01Z"]).await.len(), 3);
    let (stdout, stderr) = said(&world, &["generations", "--limit", "2"], 0).await;
    assert_eq!((stdout.lines().count(), &*stderr), (3, "There are more than these 2: --limit N or --all.\n"));
    for (wrong, named) in
        [("--status=gone", "--status"), ("--created-after=soon", "RFC 3339"), ("--metadata=user", "KEY=VALUE")]
    {
        assert!(said(&world, &["generations", wrong], 2).await.1.contains(named), "{wrong}");
    }
}

#[tokio::test]
async fn a_long_list_comes_page_by_page_with_one_head() {
    let world = World::new().await;
    for n in 0..203 {
        world.register(&format!("p-{n}")).await;
    }
    let (stdout, _) = said(&world, &["generations", "--all"], 0).await;
    assert_eq!(stdout.lines().count(), 204);
    assert_eq!(stdout.lines().filter(|line| line.starts_with("id ")).count(), 1);
    let starts: Vec<_> = stdout.lines().skip(1).map(|line| line.find("pending").unwrap()).collect();
    assert!(starts.iter().all(|start| *start == starts[0]), "the same columns on every page");
    assert_eq!(said(&world, &["generations", "--limit", "201", "--json"], 0).await.0.lines().count(), 201);
}

#[tokio::test]
async fn show_tells_the_story_of_one_generation() {
    let world = World::new().await;
    let [first, refused, last] = three(&world).await;
    let (by_theirs, _) = said(&world, &["show", &refused.provider_id], 0).await;
    let (stdout, _) = said(&world, &["show", &refused.id], 0).await;
    assert_eq!(stdout, by_theirs);
    let story = named(&stdout, &world, &refused).replace(&first.id, "FIRST").replace(&last.id, "LAST");
    same(&story, include_str!("show.txt"));
    let (timeline, _) = said(&world, &["show", &refused.id, "--timeline"], 0).await;
    assert!(stdout.contains(timeline.trim_end()), "{timeline}");

    let (json, _) = said(&world, &["show", &refused.id, "--json"], 0).await;
    let whole: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(whole["generation"], world.generation(&refused.id).await);
    assert_eq!(whole["diagnosis"]["answers"][0]["question"], "Why did it fail?");
    assert_eq!(whole["timeline"][0]["kind"], "submission");
    assert!(
        said(&world, &["show", "gen_0199d4c2b7a07f3e9b1c2a3d4e5f6071"], 1).await.1.contains("no generation of this id")
    );
    assert!(said(&world, &["show", "../../metrics"], 2).await.1.contains("ID: "));
}

/// What differs from run to run, by its name.
fn named(stdout: &str, world: &World, bought: &Bought) -> String {
    let mut story = stdout.replace(&bought.id, "GEN").replace(&bought.provider_id, "THEIRS").replace(&world.url, "URL");
    for kind in ["evt_", "dlv_"] {
        while let Some(start) = story.find(&format!("({kind}")) {
            let end = start + story[start..].find(')').unwrap();
            story.replace_range(start..=end, "(ID)");
        }
    }
    story
}

#[track_caller]
fn same(story: &str, expected: &str) {
    assert_eq!(
        story, expected,
        "what `show` says has changed; if it should, put this into tests/service/show.txt:\n{story}"
    );
}

#[tokio::test]
async fn foreign_text_does_no_harm_on_a_terminal() {
    let world = World::new().await;
    let extra = json!({"prompt": HOSTILE, "model": HOSTILE, "metadata": {"user": HOSTILE}});
    let bought = world.buy_with(Plan { fate: Fate::NeverEnds, ..Plan::completed() }, extra).await;
    world.webhook(&bought.callback_url, failed(&bought.provider_id, HOSTILE)).await.expect(200);
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["prompt"], &shown["error"]["text"]), (&json!(HOSTILE), &json!(HOSTILE)), "kept as it came");
    for arguments in [
        &["generations"][..],
        &["generations", "--json"],
        &["show", &bought.id],
        &["show", &bought.id, "--json"],
        &["show", &bought.id, "--timeline"],
        &["status"],
        &["status", "--json"],
    ] {
        // With colour allowed, so that nothing is taken out on the way.
        let coloured = [arguments, &["--color", "always"]].concat();
        let output = output(command(&world, &coloured)).await;
        let stdout = without_styles(&String::from_utf8(output.stdout).unwrap());
        let harmful = |c: char| {
            (c.is_control() && c != '\n')
                || ('\u{200b}'..='\u{200f}').contains(&c)
                || ('\u{202a}'..='\u{202e}').contains(&c)
        };
        assert!(!stdout.contains(harmful), "{arguments:?}: {stdout:?}");
        assert!(!stdout.is_empty(), "{arguments:?}");
    }
    let (json, _) = said(&world, &["show", &bought.id, "--json"], 0).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["generation"], shown, "escaped JSON means the same");
}

/// Without the few styles we write ourselves: `ESC [ digits m`.
fn without_styles(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        match part.split_once('m') {
            Some((style, rest)) if style.bytes().all(|byte| byte.is_ascii_digit()) => plain.push_str(rest),
            _ => plain.extend(["\u{1b}[", part]),
        }
    }
    plain
}

#[tokio::test]
async fn colour_is_for_terminals_only() {
    let world = World::new().await;
    three(&world).await;
    assert!(!said(&world, &["generations"], 0).await.0.contains('\u{1b}'));
    assert!(said(&world, &["generations", "--color", "always"], 0).await.0.contains("\u{1b}[1m"));
    // `script` gives it a terminal.
    let on_terminal = async |environment: &[(&str, &str)]| {
        let mut script = Command::new("script");
        let line = format!("{} generations --url {}", env!("CARGO_BIN_EXE_recoup"), world.url);
        script
            .args(["-qec", &line, "/dev/null"])
            .env("RECOUP_API__KEY", KEY)
            .env("TERM", "xterm")
            .env_remove("NO_COLOR");
        script.envs(environment.iter().copied());
        let output = output(script).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(on_terminal(&[]).await.contains("\u{1b}[1m"));
    assert!(!on_terminal(&[("NO_COLOR", "1")]).await.contains('\u{1b}'));
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_it_quietly() {
    let world = World::new().await;
    for n in 0..50 {
        world.register(&format!("p-{n}")).await;
    }
    for arguments in [&["generations", "--all", "--json"][..], &["generations"], &["status"], &["completions", "bash"]]
    {
        let mut list = if arguments[0] == "completions" {
            let mut list = Command::new(env!("CARGO_BIN_EXE_recoup"));
            list.args(arguments);
            list
        } else {
            command(&world, arguments)
        };
        let ended = tokio::task::spawn_blocking(move || {
            let mut child = list.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            drop(child.stdout.take());
            child.wait_with_output().unwrap()
        });
        let ended = ended.await.unwrap();
        assert_eq!((ended.status.code(), ended.stderr), (Some(0), Vec::new()), "{arguments:?}");
    }
}

#[tokio::test]
async fn who_cannot_be_asked_is_named_with_what_to_do() {
    let world = World::new().await;
    let status = |url: String, key: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recoup"));
        command.args(["status", "--url", &url]).current_dir(world.folder.path()).env_clear();
        command.envs(key.map(|key| ("RECOUP_API__KEY", key)));
        async move {
            let output = output(command).await;
            (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
        }
    };
    let nobody = status("http://127.0.0.1:1".to_owned(), Some(KEY)).await;
    assert!(
        nobody.0 == 1 && nobody.1.contains("http://127.0.0.1:1") && nobody.1.contains("recoup serve"),
        "{nobody:?}"
    );
    let wrong = status(world.url.clone(), Some("a key nobody knows")).await;
    assert!(wrong.0 == 1 && wrong.1.contains("does not know this API key"), "{wrong:?}");
    let none = status(world.url.clone(), None).await;
    assert!(none.0 == 1 && none.1.contains("wants an API key") && none.1.contains("--key-file"), "{none:?}");
    let stranger = status(world.provider_url.clone(), Some(KEY)).await;
    assert!(stranger.0 == 1 && stranger.1.contains("is not recoup"), "{stranger:?}");
    // A key in a file, and no configuration at all.
    let file = world.folder.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let mut with_file = command(&world, &["status", "--key-file", "key"]);
    with_file.env_remove("RECOUP_API__KEY");
    assert_eq!(output(with_file).await.status.code(), Some(0));
}

#[tokio::test]
async fn a_key_that_may_only_submit_is_told_so() {
    use recoup::config::{ApiKey, Scope};
    use recoup::secret::Secret;
    let key =
        ApiKey { name: "app".to_owned(), secret: Secret::new("a key that may submit"), scopes: vec![Scope::Submit] };
    let world = World::with(|config| config.api.keys = vec![key]).await;
    let mut list = command(&world, &["generations"]);
    list.env("RECOUP_API__KEY", "a key that may submit");
    let output = output(list).await;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("lacks the scope `read`"), "{stderr}");
}

#[test]
fn shells_and_manuals_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_recoup")).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let help = run(&["--help"]);
    let section = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let commands: Vec<_> =
        section.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(commands.contains(&"doctor") && commands.len() >= 15, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}");
    }
    assert!(run(&["man"]).starts_with(".ie") || run(&["man"]).contains(".TH recoup 1"));
    run(&["man", "pages/man1"]);
    for command in commands {
        let page = std::fs::read_to_string(folder.path().join(format!("pages/man1/recoup-{command}.1"))).unwrap();
        assert!(page.contains(".SH NAME"), "{command}");
    }
}

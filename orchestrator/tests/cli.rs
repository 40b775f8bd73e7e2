//! The program itself: exit codes, what goes where, files that are none.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, str};

fn chainplane(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chainplane"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn config(name: &str) -> String {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    configs.join(name).display().to_string()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("UTF-8")
}

/// Exit code 1, nothing on standard output, `words` on standard error.
fn assert_fails(output: &Output, words: &str) {
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    assert!(said.contains(words), "{said}");
    assert!(
        !said.contains('\u{1b}'),
        "colour without a terminal: {said:?}"
    );
}

#[test]
fn check_draws_the_chains() {
    let output = chainplane(&["check", &config("demo.yaml")]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        text(&output.stdout),
        "\
demo: 1 worker, 4 ports, 4 functions, 4 chains

  web1  [embedded-guest web1] -- <router core.web1>
  web2  [embedded-guest web2] -- <router core.web2>
  desk  [embedded-guest desk] -- <router core.desk>
  wan   <router core.wan> -- (load-balancer frontend) -- (nat egress) --
          (firewall edge) -- [embedded-guest internet]

  from web1, web2, desk: by flow records, as `frontend` keeps state
  from internet: by flow records, as `edge` keeps state

no errors
"
    );
}

/// Packets go without flow records where nothing on their way keeps state, and nowhere else.
#[test]
fn check_says_which_way_packets_go() {
    let ways = |head: &str, ports: &[&str], functions: &str, chains: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("ways.yaml");
        let port = |name: &&str| format!("  {name}: {{ tap: {{ interface: {name} }} }}\n");
        let ports: String = ports.iter().map(port).collect();
        let text_of_file = format!("{head}version: 1\nports:\n{ports}{functions}chains:\n{chains}");
        fs::write(&file, text_of_file).expect("a file");
        let output = chainplane(&["check", &file.display().to_string()]);
        assert_eq!(text(&output.stderr), "");
        let lines = text(&output.stdout).lines().map(str::trim);
        let ways = lines.filter(|line| line.starts_with("from "));
        ways.map(str::to_owned).collect::<Vec<_>>()
    };
    let ports = ["a", "b", "c", "d", "e"];
    let interface = |n: usize| format!("i{n}: {{ address: 10.0.{n}.1/24 }}");
    let interfaces = (0..5).map(interface).collect::<Vec<_>>().join(", ");
    let router =
        format!("functions:\n  core: {{ router: {{ interfaces: {{ {interfaces} }} }} }}\n");
    let chain = |(n, port): (usize, &&str)| format!("  {port}: [{port}, core.i{n}]\n");
    let chains: String = ports.iter().enumerate().map(chain).collect();
    let all = "from a, b, c, d and 1 more:";
    assert_eq!(
        ways("", &ports, &router, &chains),
        [format!(
            "{all} through functions, which keep no state, without records"
        )]
    );
    // A firewall anywhere behind the router is a reason for everyone.
    let wall = "  wall: { firewall: { default: { outbound: allow, inbound: drop } } }\n";
    let (walled, behind) = (router + wall, chains.replace("[e, core", "[e, wall, core"));
    assert_eq!(
        ways("", &ports, &walled, &behind),
        [format!("{all} by flow records, as `wall` keeps state")]
    );
    assert_eq!(
        ways("flows: { table: 0 }\n", &ports, &walled, &behind),
        [format!("{all} through functions, as `flows.table` is 0")]
    );
    assert!(
        ways("", &["a", "b"], "", "  x: [a, b]\n").is_empty(),
        "straight on"
    );
}

#[test]
fn check_explains_and_fails() {
    let bad = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bad/dangling.yaml");
    assert_fails(&chainplane(&["check", bad]), "did you mean `edge`?");
}

#[test]
fn check_finds_what_does_not_fit_where_it_stands() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("site.yaml");
    let yaml = r#"version: 1
ports:
  a: { tap: { interface: tap-a } }
  b: { tap: { interface: tap-b } }
functions:
  web: { load-balancer: { address: "203.0.113.9:80/tcp", backends: [{ address: 10.0.2.2 }] } }
chains: { x: [a, web, b] }
"#;
    fs::write(&file, yaml).expect("written");
    let output = chainplane(&["check", &file.display().to_string()]);
    assert_fails(&output, "site.yaml:6:");
    assert_fails(&output, "inside-mac");
}

#[test]
fn a_file_that_is_none_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let missing = directory.path().join("missing.yaml");
    let cases = [
        (missing, "can't be opened: No such file"),
        (
            directory.path().to_owned(),
            "a directory, where a YAML file",
        ),
        (file("empty.yaml", b""), "the file is empty"),
        (
            file("latin.yaml", b"version: 1\n# caf\xe9\n"),
            "not UTF-8 text (line 2)",
        ),
        (file("zero.yaml", b"\0\0\0"), "error: not valid YAML"),
        (
            file("large.yaml", &vec![b'#'; (1 << 20) + 1]),
            "larger than 1 MiB",
        ),
    ];
    for (path, words) in cases {
        let path = path.display().to_string();
        assert_fails(&chainplane(&["check", &path]), words);
    }
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [&["check"][..], &["chek", "x"], &["attach", "x"], &[]] {
        assert_eq!(
            chainplane(arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

#[test]
fn attach_prints_settings_for_three_hypervisors() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("vms.yaml");
    let yaml = r#"
version: 1
ports:
  plain: { vhost-user: { socket: /run/plain.sock, mac: "52:54:00:00:00:01" } }
  large:
    vhost-user: { socket: "/run/a&b,c.sock", role: client, queues: 4, mtu: 9000, mac: "52:54:00:00:00:02" }
chains: { pair: [plain, large] }
"#;
    fs::write(&file, yaml).expect("written");
    let file = file.display().to_string();
    let output = chainplane(&["attach", &file, "plain"]);
    assert_eq!(
        text(&output.stdout),
        "\
# QEMU: the machine's memory must be shared; its size is yours to choose
  -object memory-backend-memfd,id=mem,size=1G,share=on -m 1G \\
  -machine q35,memory-backend=mem \\
  -chardev socket,id=chr-plain,path=/run/plain.sock,reconnect=1 \\
  -netdev vhost-user,id=net-plain,chardev=chr-plain,queues=1 \\
  -device virtio-net-pci,netdev=net-plain,mac=52:54:00:00:00:01

# libvirt: in <domain>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
# and in <devices>
  <interface type='vhostuser'>
    <mac address='52:54:00:00:00:01'/>
    <source type='unix' path='/run/plain.sock' mode='client'>
      <reconnect enabled='yes' timeout='1'/>
    </source>
    <model type='virtio'/>
  </interface>

# cloud-hypervisor
  --memory size=1G,shared=on \\
  --net vhost_user=true,socket=/run/plain.sock,num_queues=2,mac=52:54:00:00:00:01
"
    );
    let output = chainplane(&["attach", &file, "large"]);
    let said = text(&output.stdout);
    for words in [
        "path='/run/a&b,,c.sock',server=on,wait=off",
        "queues=4",
        "mq=on,vectors=10,host_mtu=9000",
        "path='/run/a&amp;b,c.sock' mode='server'/>",
        "<driver queues='4'/>",
        "<mtu size='9000'/>",
        "num_queues=8",
        "vhost_mode=server,mtu=9000",
    ] {
        assert!(said.contains(words), "{words}:\n{said}");
    }
}

#[test]
fn attach_takes_a_side_of_a_guest_function_and_no_other_port() {
    let file = config("guest-function.yaml");
    let output = chainplane(&["attach", &file, "ids.inside"]);
    assert!(text(&output.stdout).contains("id=net-ids-inside"));
    assert_fails(
        &chainplane(&["attach", &file, "uplink"]),
        "is a port of kind tap",
    );
    assert_fails(
        &chainplane(&["attach", &file, "dest"]),
        "did you mean `desk`?",
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chainplane"))
        .arg("schema")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("an end").success());
}

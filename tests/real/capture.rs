//! What `chainplane capture` writes, read by tshark.

use std::time::Duration;

use chainplane_tests::{Chainplane, Need, Process, Result, Workspace, program};

use crate::Test;

pub const TESTS: &[Test] = &[Test {
    name: "capture::live_into_tshark",
    needs: &[Need::Program("tshark")],
    run: live_into_tshark,
}];

fn live_into_tshark() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        None,
        r#"
version: 1
ports:
  one: { embedded-guest: { address: 10.0.0.1/24, mac: "02:00:00:00:00:01", tasks: [{ ping: { to: 10.0.0.2, count: 100000 } }] } }
  two: { embedded-guest: { address: 10.0.0.2/24, mac: "02:00:00:00:00:02" } }
chains:
  only: [one, two]
"#,
    )?;
    let capture = chainplane.command(&["capture", "one"])?;
    let words: Vec<_> = capture
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    let mut shell = program("sh");
    shell.args([
        "-c",
        &format!(
            "setpriv {} | tshark -n -l -i - -c 20 -T fields -e ip.src -e ip.dst -e icmp.type",
            words.join(" ")
        ),
    ]);
    let mut process = Process::start("chainplane capture", shell)?;
    process.wait_exit(Duration::from_mins(1))?;
    let lines = process.stdout();
    for line in ["10.0.0.1\t10.0.0.2\t8", "10.0.0.2\t10.0.0.1\t0"] {
        assert!(
            lines.lines().any(|seen| seen == line),
            "no {line} in\n{lines}"
        );
    }
    chainplane.stop()
}

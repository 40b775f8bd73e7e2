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
  source:
    generator:
      { from: 10.0.0.1, to: 10.0.0.2, to-port: 53, rate: 1000, size: 100,
        from-mac: "02:00:00:00:00:01", to-mac: "02:00:00:00:00:02" }
  sink:
    generator:
      { from: 10.0.0.2, to: 10.0.0.1, packets: 0,
        from-mac: "02:00:00:00:00:02", to-mac: "02:00:00:00:00:01" }
chains:
  only: [source, sink]
"#,
    )?;
    let capture = chainplane.command(&["capture", "sink"])?;
    let words: Vec<_> = capture
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    let mut shell = program("sh");
    shell.args([
        "-c",
        &format!(
            "setpriv {} | tshark -n -l -i - -c 20 -T fields -e eth.dst -e ip.src -e ip.dst -e udp.dstport -e frame.len",
            words.join(" ")
        ),
    ]);
    let mut process = Process::start("chainplane capture", shell)?;
    process.wait_exit(Duration::from_mins(1))?;
    let lines = process.stdout();
    let packet = "02:00:00:00:00:02\t10.0.0.1\t10.0.0.2\t53\t100";
    assert_eq!(lines.lines().collect::<Vec<_>>(), [packet; 20]);
    chainplane.stop()
}

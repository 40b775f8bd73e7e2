//! `chainplane run` and `chainplane demo`: a configuration, from start to stop.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{explain, fail, open, print};
use crate::control::server::Server;
use crate::demo::{self, Display};
use crate::guest::Guests;
use crate::instance::{Instance, StartError};
use crate::spec::{self, Checked, Environment};

/// How often the main thread looks for an end.
const GLANCE: Duration = Duration::from_millis(50);
/// How long clients of the control socket may hold up the end: longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `file` until a signal, or until nothing can come in any more.
pub fn run(file: &Path) -> Result<ExitCode, ExitCode> {
    start(&open(file)?)
}

/// Runs the demo.
pub fn demo() -> Result<ExitCode, ExitCode> {
    let file = Path::new(demo::FILE);
    let checked = spec::check_text(demo::CONFIGURATION.to_owned(), file, &Environment::here());
    let mut checked = checked.map_err(|report| explain(&report))?;
    // Several users of one machine may try it at a time.
    let socket = format!("demo-{}.sock", std::process::id());
    checked.model.control.path.set_file_name(socket);
    start(&checked)
}

fn start(checked: &Checked) -> Result<ExitCode, ExitCode> {
    let stop = super::stop_signal()?;
    let instance = Instance::start(checked.model.clone()).map_err(|error| match error {
        StartError::Plan(errors) => explain(&checked.explain(errors)),
        error => fail(&error.to_string()),
    })?;
    let instance = Arc::new(instance);
    let server =
        Server::start(&instance.model().control, &instance).map_err(|error| fail(&error))?;
    print(&format!(
        "{} runs; see it by: chainplane show --socket {}\n",
        instance.model().name,
        instance.model().control.path.display()
    ))?;
    let mut guests = demo::attach(&instance).map_err(|error| fail(&error))?;
    let mut display = Display::new(&instance.model().name, guests.is_some());
    let broken = watch(&instance, &stop, guests.as_mut(), &mut display);
    if let Some(guests) = &mut guests {
        guests.stop();
    }
    drop(server);
    let mut instance = reclaim(instance)?;
    instance.stop();
    // A terminal that is gone takes no last table.
    let _ = display.end(&instance, guests.as_ref());
    match (broken, guests) {
        (Some(worker), _) => Err(fail(&format!("worker {worker} met a defect and ended"))),
        (None, Some(guests)) if guests.tasks() > 0 => conclude(&guests, &instance),
        (None, _) => Ok(ExitCode::SUCCESS),
    }
}

/// Takes the instance back from clients of the control socket that are being answered.
fn reclaim(mut instance: Arc<Instance>) -> Result<Instance, ExitCode> {
    let patience = Instant::now() + PATIENCE;
    loop {
        instance = match Arc::try_unwrap(instance) {
            Ok(only) => return Ok(only),
            Err(_) if Instant::now() > patience => {
                return Err(fail("a client of the control socket did not let go"));
            }
            Err(shared) => shared,
        };
        std::thread::sleep(GLANCE);
    }
}

/// Watches until the end; tells which worker broke, if one did.
fn watch(
    instance: &Instance,
    stop: &AtomicBool,
    mut guests: Option<&mut Guests>,
    display: &mut Display,
) -> Option<usize> {
    let ends_with_tasks = demo::ends_with_tasks(instance.model());
    while !stop.load(Ordering::Acquire) && !instance.is_finished() {
        if let Some(worker) = instance.broken_worker() {
            return Some(worker);
        }
        let told = if let Some(guests) = guests.as_deref_mut() {
            let old = guests.results().len();
            guests.wait(GLANCE);
            old
        } else {
            std::thread::sleep(GLANCE);
            0
        };
        let guests = guests.as_deref();
        let done = guests.map_or(&[][..], |guests| &guests.results()[told..]);
        // Packets go on when nobody reads what is shown any more.
        let _ = display.show(instance, guests, done);
        if ends_with_tasks && guests.is_some_and(Guests::are_done) {
            break;
        }
    }
    None
}

/// Says what was proved; exit code 0 if it was all.
fn conclude(guests: &Guests, instance: &Instance) -> Result<ExitCode, ExitCode> {
    let proofs = demo::proofs(guests, &instance.snapshots());
    let lines: Vec<String> = proofs.iter().map(ToString::to_string).collect();
    print(&format!("\n{}\n", lines.join("\n")))?;
    if proofs.iter().all(|proof| proof.held) {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(ExitCode::FAILURE)
    }
}

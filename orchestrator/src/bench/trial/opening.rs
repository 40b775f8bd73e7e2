//! Before a trial each flow is opened once: the target learns it, and the generator learns how it is rewritten.

use std::time::{Duration, Instant};

use super::BenchError;
use super::engine::{BURST, Engine};
use super::generator::Control;
use crate::bench::traffic::head::HEAD;

/// Openings under way at most, so that no queue overflows.
const UNDER_WAY: u64 = 256;
/// Times that a flow is tried: for some seconds in all, as a router whose question for a neighbour was lost asks again
/// after one.
const ROUNDS: u32 = 8;
/// The wait for answers that are still to come at the end of a round; it doubles with each.
const PATIENCE: Duration = Duration::from_millis(20);
/// Such waits in a row without a single answer that end a round: what is full stays full, however many flows are left.
const VAIN: u32 = 8;

/// Opens all flows.
///
/// # Errors
/// When some, or none, come through; a target that goes; the user's wish.
pub fn open(engine: &mut Engine, control: &Control) -> Result<(), BenchError> {
    let Some(scene) = &mut engine.scene else {
        return Err(BenchError::Arguments("no traffic was set".into()));
    };
    let names = engine.names.clone();
    scene.restart(&names);
    scene.forget();
    (scene.opening, scene.opened, scene.misanswered) = (true, 0, None);
    let flows = u64::from(scene.packets.traffic.flows);
    let mut patience = PATIENCE;
    for _ in 0..ROUNDS {
        round(engine, patience, control)?;
        patience *= 2;
        if engine
            .scene
            .as_ref()
            .is_some_and(|scene| scene.opened >= flows)
        {
            return Ok(());
        }
    }
    Err(blocked(engine))
}

/// Tries each flow that is not open.
fn round(engine: &mut Engine, patience: Duration, control: &Control) -> Result<(), BenchError> {
    let Some(scene) = &engine.scene else {
        return Ok(());
    };
    let (base, flows) = (scene.base, scene.packets.traffic.flows);
    let mut ahead = 0;
    let (mut tried, opened) = (0, scene.opened);
    let mut heard = Instant::now();
    let (mut last, mut vain) = (scene.opened, 0);
    loop {
        let got = engine.turn(0, control)?;
        answer(engine);
        let Some(scene) = &engine.scene else {
            return Ok(());
        };
        let now = Instant::now();
        if scene.opened != last {
            (last, heard, vain) = (scene.opened, now, 0);
        }
        let under_way = u64::saturating_sub(tried, scene.opened - opened);
        // What has not come for so long was lost, and makes room for others.
        let quiet = now - heard >= patience;
        if quiet && under_way > 0 {
            tried = scene.opened - opened;
            heard = now;
            vain += 1;
        }
        if vain == VAIN {
            return Ok(());
        }
        if ahead < flows && (under_way < UNDER_WAY || quiet) {
            let mut head = [0; HEAD];
            for _ in 0..BURST {
                ahead = next(engine, base, ahead, flows);
                if ahead == flows || !send(engine, 0, base.wrapping_add(ahead), &mut head) {
                    break;
                }
                (ahead, tried) = (ahead + 1, tried + 1);
            }
            engine.ends[0].flush();
        } else if ahead == flows && (quiet || under_way == 0) {
            return Ok(());
        } else if got == 0 {
            std::thread::yield_now();
        }
    }
}

/// The next flow from `ahead` on that is not open.
fn next(engine: &Engine, base: u32, ahead: u32, flows: u32) -> u32 {
    let Some(scene) = &engine.scene else {
        return flows;
    };
    let is_open = |ahead: &u32| {
        let flow = base.wrapping_add(*ahead);
        scene.flows.is_open(flow, scene.is_answered(flow))
    };
    (ahead..flows)
        .find(|ahead| !is_open(ahead))
        .unwrap_or(flows)
}

/// Has the second endpoint answer what has arrived there.
fn answer(engine: &mut Engine) {
    let mut head = [0; HEAD];
    let mut count = 0;
    while let Some(flow) = engine.scene.as_mut().and_then(|s| s.answers.pop_front()) {
        // What finds no room is lost, and its flow is tried again.
        send(engine, 1, flow, &mut head);
        count += 1;
    }
    if count > 0 {
        engine.ends[1].flush();
    }
}

fn send(engine: &mut Engine, direction: usize, flow: u32, head: &mut [u8; HEAD]) -> bool {
    let Some(scene) = &mut engine.scene else {
        return false;
    };
    let Some(len) = scene.write_opening(direction, flow, head) else {
        return false;
    };
    let queue = flow as usize % engine.ends[direction].queues();
    engine.ends[direction].send(queue, head, len)
}

/// Why flows did not open, as far as it can be seen.
fn blocked(engine: &Engine) -> BenchError {
    let Some(scene) = &engine.scene else {
        return BenchError::Arguments("no traffic was set".into());
    };
    let (flows, base) = (scene.packets.traffic.flows, scene.base);
    let numbers = || (0..flows).map(|ahead| base.wrapping_add(ahead));
    let arrived = numbers().filter(|f| scene.flows.is_open(*f, false)).count();
    let (direction, what, came) = if arrived < flows as usize {
        (0, "first packets", arrived as u64)
    } else {
        (1, "answers", scene.opened)
    };
    let missing = numbers().find(|flow| !scene.flows.is_open(*flow, direction == 1));
    let example = missing.map(|flow| {
        let tuple = scene.packets.tuple(flow);
        let tuple = if direction == 0 {
            tuple
        } else {
            tuple.answer()
        };
        format!(", as {tuple}")
    });
    let example = example.unwrap_or_default();
    let reason = if came == 0 {
        let tried = match flows {
            1 => "one flow was".to_owned(),
            flows => format!("{flows} flows were"),
        };
        format!("nothing comes through: {tried} tried {ROUNDS} times{example}")
    } else {
        format!(
            "only {came} of {flows} flows' {what} come through, tried {ROUNDS} times: the others don't{example}"
        )
    };
    let mut hint = "does the target forward between these two endpoints, are the MAC and IP addresses those that it \
                    expects, and does it allow these flows?"
        .to_owned();
    if let Some(misanswered) = &scene.misanswered {
        hint.clone_from(misanswered);
    } else if came > 0 {
        "does it have room for so many flows (sessions, ports of a NAT, queue lengths)?"
            .clone_into(&mut hint);
    }
    BenchError::Blocked {
        direction: engine.names[direction].clone(),
        reason,
        hint: Some(hint),
    }
}

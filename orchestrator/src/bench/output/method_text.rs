//! How the figures of a report came about, in words: so that a reader can judge and repeat them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::record::Results;
use super::text::escaped;
use crate::bench::method::{Method, Settings};
use crate::bench::units::{percent, span};

/// The section of the page.
pub fn section(html: &mut String, results: &Results) {
    html.push_str("<h2>Method</h2>\n");
    html.push_str(
        "<p>The generator attaches as guests. It sends by the clock, whatever the target does (open loop), except where \
         a method says otherwise. Every packet carries a sequence number and a time stamp, so that lost, reordered, \
         duplicated and corrupted packets are counted apart, and a translated packet is checked against its flow.</p>\n\
         <p>What the host does to a trial is watched: time that the hypervisor took, jumps of the clock between two polls \
         (above 200 µs), processors taken away. Loss that this may have caused does not count: such a trial is repeated, \
         and a figure that still stands on it is marked as spoiled. Of loss in a trial with such a gap only that counts \
         which exceeds what arrives in twice the gap. Where fewer than 10 % of the generator's polls found nothing to do, \
         the generator was the limit, and the figure is marked so.</p>\n\
         <p>Intervals are 95 % intervals of Student's t; ratios are averaged as logarithms of pairs measured in turn.</p>\n",
    );
    let mut told = BTreeSet::new();
    html.push_str("<dl>");
    for case in &results.cases {
        for &method in &case.settings.methods {
            for (name, text) in texts(method, &case.settings) {
                if told.insert((name.clone(), text.clone())) {
                    let _ = write!(
                        html,
                        "<dt>{}</dt><dd>{}</dd>",
                        escaped(&name),
                        escaped(&text)
                    );
                }
            }
        }
    }
    html.push_str("</dl>\n");
}

/// A method's name and what it does, with its settings.
fn texts(method: Method, settings: &Settings) -> Vec<(String, String)> {
    let trial = span(settings.rfc2544_trial);
    let text = match method {
        Method::Ndr | Method::Pdr => return goals(settings),
        Method::Mrr => format!(
            "Packets a second that come through when as much is sent as the target takes (closed loop): {} trials of {}; \
             median, and the interval of the mean.",
            settings.mrr_trials,
            span(settings.mrr_trial)
        ),
        Method::Throughput => format!(
            "RFC 2544, section 26.1: halving between a rate that lost a frame in {trial} and one that lost none, to {}.",
            percent(settings.rfc2544_width)
        ),
        Method::FrameLoss => format!(
            "RFC 2544, section 26.3: trials of {trial} from the highest load down by tenths until two in a row lose nothing."
        ),
        Method::BackToBack => format!(
            "RFC 9004: the longest burst without loss, mean of {} searches. Bursts are sent at twice what comes through at \
             most, as a virtqueue has no line rate. Corrected buffer time = burst / rate × (1 − throughput / rate).",
            settings.repetitions
        ),
        Method::Recovery => format!(
            "RFC 2544, section 26.5: {trial} at 110 % of the throughput, then half of that; time to the last lost packet, \
             mean of {}.",
            settings.repetitions
        ),
        Method::Latency => format!(
            "Trials of {} at {}. A packet's time runs from when it was due, not from when there was room \
             for it, so that a target that stalls cannot hide behind packets not sent (coordinated omission).",
            span(settings.latency_trial),
            match settings.load_share {
                Some(share) => format!("{} of the rate that was found", percent(share)),
                None => "shares of the NDR".to_owned(),
            }
        ),
        Method::Soak => format!(
            "{} at {} of the rate that was found (NDR, else throughput or PDR), or at the load that was given. A packet's time \
             runs from when it was due. Jumps are those of the generator's clock between two readings, of which there are \
             several in a poll: time in which the machine did something else.",
            span(settings.soak),
            percent(settings.load_share.unwrap_or(settings.soak_share))
        ),
        Method::ConnectionsPerSecond | Method::ConcurrentConnections | Method::Transactions => {
            format!(
                "After RFC 9411: real TCP connections, requests of {} and answers of {} bytes, trials of {}. A value counts if \
             at most 0.001 % of its connections fail.",
                settings.request,
                settings.response,
                span(settings.connections_trial)
            )
        }
    };
    vec![(method.name(), text)]
}

fn goals(settings: &Settings) -> Vec<(String, String)> {
    let goals = settings.goals.iter().map(|goal| {
        let text = format!(
            "MLRsearch (RFC 9971): goal loss ratio {}, exceed ratio {}, width {}, initial trial {}, final trial {}, \
             duration sum {}. The relevant lower bound is quoted{}.",
            percent(goal.loss_ratio),
            percent(goal.exceed_ratio),
            percent(goal.width),
            span(goal.initial_trial),
            span(goal.final_trial),
            span(goal.duration_sum),
            if settings.searches > 1 {
                format!(": the mean of {} searches", settings.searches)
            } else {
                String::new()
            }
        );
        (goal.name.clone(), text)
    });
    goals.collect()
}

//! What a calibration says, in words.

use std::fmt::Write as _;

use super::record::{Case, Outcome, Results};
use super::text;
use crate::bench::method::MOST_NOISE;
use crate::bench::units::{percent, pps};

/// What the generator reached alone and over rings, and what that means for whoever measures a target.
pub fn text(results: &Results) -> String {
    let mut out = String::new();
    for case in &results.cases {
        let Some((Outcome::Mrr(mrr), figure)) =
            case.results.first().and_then(|it| Some((it, it.figure()?)))
        else {
            out.push_str(&text::case(case));
            continue;
        };
        let idle = idle(case, mrr.quality.spoiled);
        let (rate, idle) = (pps(figure.rate), percent(idle).replace(' ', "\u{a0}"));
        let said = if mrr.quality.spoiled {
            format!("about {rate}, as far as the host's noise lets it be told")
        } else {
            rate
        };
        let _ = writeln!(out, "{}: {said}", case.name);
        let meaning = if case
            .target
            .endpoints
            .iter()
            .any(|end| end.starts_with("loop"))
        {
            "The generator alone, making, sending, receiving and checking packets in memory: no result can be higher."
                .to_owned()
        } else if mrr.quality.generator_limited {
            format!(
                "Over rings, to a back end that only passes frames on: {idle} of the generator's polls found nothing \
                 to do, so that it was the limit. A target that does no more than this back end can't be told from \
                 it; its result will be marked."
            )
        } else {
            format!(
                "Over rings, to a back end that only passes frames on: {idle} of the generator's polls found nothing \
                 to do, so that back end, rings and the distance of the cores were the limit, and not the generator."
            )
        };
        text::line(&mut out, &format!("  {}", case.traffic.description));
        text::line(&mut out, &format!("  {meaning}"));
        out.push('\n');
    }
    out.push_str(text::remarks(results));
    out
}

/// The least share of polls that found nothing to do, of the trials that the figure stands on.
fn idle(case: &Case, spoiled: bool) -> f64 {
    let trials = case.trials.iter();
    let trials = trials
        .filter(|trial| trial.method == "mrr" && (spoiled || trial.noise.share <= MOST_NOISE));
    let idle = trials.map(|trial| trial.generator_idle);
    idle.fold(1.0, f64::min).max(0.0)
}

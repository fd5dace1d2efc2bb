//! `tarsup build --plan`: what would be built or taken, why, what the gates say, and what each output would be sent.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::output_report;
use crate::build::{Built, Origin, Packed};
use crate::cli::image;
use crate::cli::places::Places;
use crate::cli::{Failure, Outcome, Ui};
use crate::diagnose::Exit;
use crate::oci::Reference;
use crate::transport::{Forecast, ImageName};

/// Shows a rehearsed build, of which `said` was said already, and why a build would come to something else where it would. Where the
/// gates refuse it, so does the exit code.
pub(super) fn show(
    built: Built,
    (said, inexact): (&[String], Option<&str>),
    reference: &Reference,
    outputs: &[ImageName],
    places: &Places,
    ui: &Ui,
) -> Outcome {
    let mut forecasts = image::forecast(&built.image, outputs, reference, places, ui)?;
    for warning in &built.warnings {
        ui.warn(warning);
    }
    let mut text = format!("would build {reference}\n  digest  {}", built.image.digest());
    for layer in &built.layers {
        let content = layer.content.map_or_else(String::new, image::bytes);
        let _ = write!(text, "\n  {:<18} {content:>10} -> {:>10}  ", layer.name, image::bytes(layer.size));
        let _ = write!(text, "{}  {}", why(layer), layer.what);
    }
    if let Some(note) = &built.note {
        let _ = write!(text, "\n{note}");
    }
    for (output, forecast) in &mut forecasts {
        if let Some(why) = inexact {
            forecast.inexact = Some(why.to_owned());
        }
        text.push('\n');
        text += &image::forecast_text(output, forecast);
    }
    ui.result(&text);
    let refused: Vec<Failure> = built.refused.into_iter().map(Failure::from).collect();
    let layer = |layer: &Packed| {
        json!({ "name": layer.name, "what": layer.what, "content": layer.content, "diff_id": layer.diff_id,
                "digest": layer.digest, "size": layer.size, "cached": layer.is_cached(), "origin": layer.origin })
    };
    let output = |(output, forecast): &(String, Forecast)| {
        let mut document = output_report(&(output.clone(), forecast.receipt.clone()));
        image::note_inexact(forecast, &mut document);
        document
    };
    let mut document = json!({
        "image": reference.to_string(),
        "digest": built.image.digest(),
        "config_digest": built.image.config_digest(),
        "layers": built.layers.iter().map(layer).collect::<Vec<_>>(),
        "outputs": forecasts.iter().map(output).collect::<Vec<_>>(),
        "inexact": inexact,
        "note": built.note,
        "warnings": said.iter().chain(&built.warnings).collect::<Vec<_>>(),
        "refused": refused.iter().map(Failure::document).collect::<Vec<Value>>(),
    });
    ui.tell_timings(&mut document);
    ui.json(&document);
    if !ui.is_json() {
        for failure in &refused {
            failure.say(ui);
        }
    }
    Ok(refused.first().map_or(Exit::Done, |failure| failure.error().exit()))
}

/// Why a layer is made, or not.
fn why(layer: &Packed) -> &'static str {
    match layer.origin {
        Origin::Made => "to be compressed: new content",
        Origin::Cache => "in the cache",
        Origin::Predecessor => "the predecessor's: same content",
        Origin::Kept => "the predecessor's: stays in its place",
        Origin::Base => "the base's, as it is",
    }
}

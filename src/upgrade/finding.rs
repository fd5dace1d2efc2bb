//! What is found before the first step: each finding refuses, asks or tells, and all of them are gathered before any is shown.

use serde::Serialize;

use super::Refusal;
use super::step::Plan;

/// What a finding is about: the word for it in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// The fixed addresses of containers.
    Addresses,
    /// Clocks and time zones.
    Clocks,
    /// What goes silent while its container is replaced.
    Gaps,
    /// What is being published right now.
    Publishing,
    /// Nodes and services that are down, silent or behind.
    Cluster,
    /// Room on disks.
    Room,
    /// Whether the versions of before can start on what a migration leaves.
    Schema,
    /// What the way back needs.
    WayBack,
}

/// What becomes of a finding that does not refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A line of the plan.
    Note,
    /// Asked on a terminal, answered by `--yes`.
    Question,
}

/// A finding that does not refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub about: About,
    /// What becomes of it.
    pub kind: Kind,
    /// One sentence.
    pub text: String,
}

/// All that is found.
#[derive(Debug, Default)]
pub struct Findings {
    refusals: Vec<Refusal>,
    told: Vec<Finding>,
}

impl Findings {
    /// Adds what stands in the way; what an earlier one says already is said once.
    pub fn refuse(&mut self, refusal: Refusal) {
        let parts = match refusal {
            Refusal::Several { all } => all,
            one => vec![one],
        };
        for one in parts {
            let text = one.to_string();
            if !self.refusals.iter().any(|known| known.to_string() == text) {
                self.refusals.push(one);
            }
        }
    }

    /// What was gained, or nothing and one refusal more.
    pub fn check<T>(&mut self, result: Result<T, impl Into<Refusal>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.refuse(refusal.into());
                None
            }
        }
    }

    /// Adds a line for the plan.
    pub fn note(&mut self, about: About, text: String) {
        self.told.push(Finding { about, kind: Kind::Note, text });
    }

    /// Adds a question.
    pub fn ask(&mut self, about: About, text: String) {
        self.told.push(Finding { about, kind: Kind::Question, text });
    }

    /// Adds all of another list.
    pub fn extend(&mut self, other: Self) {
        self.told.extend(other.told);
        other.refusals.into_iter().for_each(|refusal| self.refuse(refusal));
    }

    /// True where something stands in the way.
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// True where the guard is among what stands in the way.
    pub fn is_guarded(&self) -> bool {
        self.refusals.iter().any(|refusal| matches!(refusal, Refusal::Guard(_)))
    }

    /// What does not refuse.
    pub fn told(&self) -> &[Finding] {
        &self.told
    }

    /// Everything that stands in the way as one error, else what does not refuse.
    pub fn judged(self) -> Result<Vec<Finding>, Refusal> {
        Refusal::together(self.refusals)?;
        Ok(self.told)
    }
}

/// Puts findings where a person reads them.
pub(super) fn tell(plan: &mut Plan, findings: &[Finding]) {
    for finding in findings {
        match finding.kind {
            Kind::Note => plan.notes.push(finding.text.clone()),
            Kind::Question => plan.questions.push(finding.text.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{Diagnose as _, Exit};

    fn taken(service: &str) -> Refusal {
        Refusal::NoService { service: service.to_owned(), why: "it is not declared".to_owned() }
    }

    fn guarded() -> Refusal {
        Refusal::EngineTooOld { has: "1.30".to_owned(), wants: "1.40" }
    }

    #[test]
    fn one_refusal_is_itself_and_several_are_said_together() {
        let mut findings = Findings::default();
        findings.note(About::Room, "there is little room".to_owned());
        assert!(!findings.is_refused());
        assert_eq!(findings.told().len(), 1);
        findings.refuse(taken("a"));
        findings.refuse(taken("a"));
        let one = Findings::default().check::<()>(Err(taken("b")));
        assert!(one.is_none());
        let mut more = Findings::default();
        more.refuse(guarded());
        findings.extend(more);
        let refusal = findings.judged().unwrap_err();
        assert_eq!(refusal.parts().len(), 2, "{refusal}");
        assert_eq!(refusal.exit(), Exit::Refused, "one of them is");
        assert!(refusal.to_string().contains("no service `a`"), "{refusal}");

        let mut alone = Findings::default();
        alone.refuse(taken("a"));
        assert!(matches!(alone.judged(), Err(Refusal::NoService { .. })));
    }
}

//! Which services come before which, by what each depends on. Pure.

use crate::deploy::desired::Service;

/// The services in the order of declaration, each after those that it depends on. A circle ends where it began.
pub(super) fn by_dependency(services: &[Service]) -> Vec<&Service> {
    fn visit<'a>(
        service: &'a Service,
        services: &'a [Service],
        seen: &mut Vec<&'a str>,
        out: &mut Vec<&'a Service>,
    ) {
        if seen.contains(&service.name.as_str()) {
            return;
        }
        seen.push(&service.name);
        for name in &service.depends_on {
            if let Some(needed) = services.iter().find(|other| other.name == *name) {
                visit(needed, services, seen, out);
            }
        }
        out.push(service);
    }
    let (mut seen, mut out) = (Vec::new(), Vec::new());
    for service in services {
        visit(service, services, &mut seen, &mut out);
    }
    out
}

/// The services without a role that one with a role depends on, directly or not.
pub(super) fn needed_by_framework(services: &[Service]) -> Vec<&str> {
    let mut needed: Vec<&str> = Vec::new();
    let mut open: Vec<&Service> = services.iter().filter(|service| service.role.is_some()).collect();
    while let Some(service) = open.pop() {
        for name in &service.depends_on {
            if let Some(found) = services.iter().find(|other| other.name == *name && other.role.is_none())
                && !needed.contains(&found.name.as_str())
            {
                needed.push(&found.name);
                open.push(found);
            }
        }
    }
    needed
}

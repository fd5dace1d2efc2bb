//! One registry: where it is, who asks, and requests that are sent again where that may help.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{Mutex, OnceCell};

use super::challenge::Challenge;
use super::credentials::{self, Credential};
use super::error::{RegistryError, Result, is_transient, said, unanswered};
use super::patience::{Patience, retry_after, silence};
use super::{location, trust};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// No token and no error is larger.
const LARGEST_TOKEN: u64 = 1 << 20;
/// So often a request is sent on to somewhere else.
const MOST_REDIRECTS: usize = 5;

/// So often one request is shown another token where the one before never served anything: then it is not the token.
const MOST_REFUSALS: u32 = 3;
/// So often where it had served: it came to its end, and several requests share one.
const MOST_RENEWALS: u32 = 50;

/// What of a request's tokens was refused so far.
#[derive(Default)]
pub(super) struct Renewals {
    refused: u32,
    ended: u32,
    accepted: u64,
}

impl Renewals {
    /// Counts one more; false where another token is of no use. `has_served` says that the refused one was good before, and
    /// `accepted` how many answers any token has had: where others go on meanwhile, they have used it up.
    pub fn may_go_on(&mut self, has_served: bool, accepted: u64) -> bool {
        let goes_on = has_served || accepted > self.accepted;
        self.accepted = accepted;
        let count = if goes_on { &mut self.ended } else { &mut self.refused };
        *count += 1;
        self.refused <= MOST_REFUSALS && self.ended <= MOST_RENEWALS
    }
}

/// A body of a request.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// What is answered; its body may still be on its way.
pub(super) type Answer = Response<Incoming>;

/// What somebody wants to do, in the words of the token servers, such as `repository:tars/framework:pull`.
pub(super) type Scopes = Vec<String>;

/// One request that may be sent as often as it takes.
pub(super) struct Call {
    pub method: Method,
    pub uri: Uri,
    pub headers: Vec<(HeaderName, String)>,
    pub body: Bytes,
    pub scopes: Scopes,
    /// What it is, for errors: `read the tag 1 of x`.
    pub act: String,
}

/// How a registry wants to know who asks.
enum Access {
    /// It has not said.
    Open,
    Basic,
    Bearer {
        realm: Uri,
        service: Option<String>,
        tokens: BTreeMap<Scopes, String>,
        /// Those with which something was done, also where they have ended since.
        served: BTreeSet<String>,
    },
}

/// A registry that was found.
pub(super) struct Session {
    /// Its host, as references have it.
    pub host: String,
    may_be_plain: bool,
    /// Somebody else has the same: it is not waited for as long.
    is_mirror: bool,
    http: Client<HttpsConnector<HttpConnector>, Body>,
    origin: OnceCell<Uri>,
    credential: OnceCell<Option<Credential>>,
    access: Mutex<Access>,
    /// How many answers tokens have had.
    accepted: AtomicU64,
    /// The repositories that this run has written to: where blobs may be had without sending them.
    pub written: std::sync::Mutex<BTreeSet<String>>,
    /// Blobs that a forecast sees coming, by repository: what follows it in one command finds them there.
    pub foreseen: std::sync::Mutex<BTreeSet<(String, crate::oci::Digest)>>,
}

impl Session {
    /// A registry that has not been spoken to.
    pub fn new(registry: &str, may_be_plain: bool, is_mirror: bool) -> Result<Self> {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT));
        let tls = HttpsConnectorBuilder::new().with_tls_config(trust::config(host)?);
        let connector = tls.https_or_http().enable_http1().wrap_connector(connector);
        let http =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(20)).build(connector);
        Ok(Self {
            host: registry.to_owned(),
            // A registry that certificates were laid out for speaks TLS.
            may_be_plain: may_be_plain && trust::folders(host).is_empty(),
            is_mirror,
            http,
            origin: OnceCell::new(),
            credential: OnceCell::new(),
            access: Mutex::new(Access::Open),
            written: std::sync::Mutex::default(),
            foreseen: std::sync::Mutex::default(),
            accepted: AtomicU64::default(),
        })
    }

    /// How long it is waited for.
    pub fn patience(&self) -> Patience {
        if self.is_mirror { Patience::brief() } else { Patience::new() }
    }

    /// Scheme and authority of the registry. It is asked once, and says then who may ask.
    pub async fn origin(&self) -> Result<&Uri> {
        self.origin.get_or_try_init(|| self.look()).await
    }

    async fn look(&self) -> Result<Uri> {
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host };
        let origin = |scheme: &str| {
            format!("{scheme}://{host}/")
                .parse::<Uri>()
                .map_err(|error| RegistryError::Name { name: self.host.clone(), why: error.to_string() })
        };
        let secure = origin("https")?;
        match self.ping(&secure).await {
            Ok(()) => Ok(secure),
            // Nobody was shown anything yet.
            Err(
                RegistryError::Untrusted { certificate: false, .. }
                | RegistryError::Lost { .. }
                | RegistryError::Unreachable { .. },
            ) if self.may_be_plain => {
                let plain = origin("http")?;
                self.ping(&plain).await?;
                Ok(plain)
            }
            Err(error) => Err(error),
        }
    }

    async fn ping(&self, origin: &Uri) -> Result<()> {
        let act = "say that it is a registry";
        let uri = location::join(origin, "/v2/").ok_or_else(|| self.malformed("its name", "no address"))?;
        let mut patience = self.patience();
        loop {
            let request = self.request(&Method::GET, &uri, &[], None, empty());
            let answer = match self.send(request?, act, None).await {
                Ok(answer) => answer,
                Err(error @ RegistryError::Lost { .. }) if !self.may_be_plain => {
                    patience.wait(None, error).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match answer.status() {
                StatusCode::OK => return Ok(()),
                StatusCode::UNAUTHORIZED => {
                    let challenge = self.challenge(answer.headers())?;
                    *self.access.lock().await = self.offered(challenge, origin)?;
                    return Ok(());
                }
                status if is_transient(status) => {
                    let after = retry_after(answer.headers());
                    patience.wait(after, self.refusal(answer, act).await).await?;
                }
                status if status.is_redirection() || matches!(status.as_u16(), 404 | 405 | 410 | 501) => {
                    return Err(RegistryError::NoRegistry { host: self.host.clone(), status });
                }
                _ => return Err(self.refusal(answer, act).await),
            }
        }
    }

    fn challenge(&self, headers: &HeaderMap) -> Result<Challenge> {
        let offered = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        Challenge::choose(offered)
            .ok_or_else(|| self.malformed("a demand for a login", "it offers neither a password nor a token"))
    }

    fn offered(&self, challenge: Challenge, origin: &Uri) -> Result<Access> {
        let Challenge::Bearer { realm, service, .. } = challenge else { return Ok(Access::Basic) };
        let wrong = |why: &str| self.malformed("the address of its tokens", why);
        let realm: Uri = realm.parse().map_err(|_| wrong("no address"))?;
        if realm.authority().is_none() || !matches!(realm.scheme_str(), Some("http" | "https")) {
            return Err(wrong("no address"));
        }
        // A password that would have gone over TLS does not go without.
        if realm.scheme_str() == Some("http") && origin.scheme_str() == Some("https") {
            return Err(wrong("the registry speaks TLS, and that address does not"));
        }
        Ok(Access::Bearer { realm, service, tokens: BTreeMap::new(), served: BTreeSet::new() })
    }

    /// The address of something in the registry.
    pub async fn at(&self, path: &str) -> Result<Uri> {
        let origin = self.origin().await?;
        location::join(origin, path).ok_or_else(|| self.malformed("its name", "no address"))
    }

    /// Where an answer points to, seen from what was asked. A registry with TLS never leads out of it.
    pub fn location(&self, from: &Uri, headers: &HeaderMap) -> Result<Uri> {
        let wrong = |why| self.malformed("the place to go on at", why);
        let text = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let found = location::join(from, text.ok_or_else(|| wrong("none is named"))?);
        let found = found.ok_or_else(|| wrong("no address"))?;
        if from.scheme_str() == Some("https") && found.scheme_str() != Some("https") {
            return Err(wrong("it leads from TLS to an address without"));
        }
        Ok(found)
    }

    /// Sends a request until it is answered by something that is no excuse. What is answered may still be a refusal.
    pub async fn call(&self, call: &Call) -> Result<Answer> {
        let mut patience = self.patience();
        let mut renewals = Renewals::default();
        let mut redirects = 0;
        let mut uri = call.uri.clone();
        loop {
            let shown = self.authorization(&uri, &call.scopes).await?;
            let body = Full::new(call.body.clone()).map_err(|never| match never {}).boxed_unsync();
            let request = self.request(&call.method, &uri, &call.headers, shown.as_deref(), body)?;
            let answer = match self.send(request, &call.act, None).await {
                Ok(answer) => answer,
                Err(error @ (RegistryError::Lost { .. } | RegistryError::Unreachable { .. })) => {
                    patience.wait(None, error).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && self.is_own(&uri) {
                let has_served = self.renew(answer.headers(), &call.scopes, shown.as_deref()).await?;
                if !renewals.may_go_on(has_served, self.accepted()) {
                    return Err(self.unauthorized(shown.is_some(), &call.act).await);
                }
                continue;
            }
            self.served(shown.as_deref()).await;
            if is_transient(status) {
                let after = retry_after(answer.headers());
                patience.wait(after, self.refusal(answer, &call.act).await).await?;
            } else if status.is_redirection() && matches!(call.method, Method::GET | Method::HEAD) {
                redirects += 1;
                if redirects > MOST_REDIRECTS {
                    return Err(self.malformed("the place to go on at", "it leads on and on"));
                }
                uri = self.location(&uri, answer.headers())?;
            } else {
                return Ok(answer);
            }
        }
    }

    /// Sends a request once, with a body that cannot be sent again. `sent` counts what the body has brought. True beside an
    /// answer that a token has come to its end, and that there is another one.
    pub async fn call_once(&self, call: &Call, body: Body, sent: &Arc<AtomicU64>) -> Result<(Answer, bool)> {
        let shown = self.authorization(&call.uri, &call.scopes).await?;
        let request = self.request(&call.method, &call.uri, &call.headers, shown.as_deref(), body)?;
        let answer = self.send(request, &call.act, Some(sent)).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.is_own(&call.uri) {
            let has_served = self.renew(answer.headers(), &call.scopes, shown.as_deref()).await?;
            return Ok((answer, has_served));
        }
        self.served(shown.as_deref()).await;
        Ok((answer, false))
    }

    fn request(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &[(HeaderName, String)],
        shown: Option<&str>,
        body: Body,
    ) -> Result<Request<Body>> {
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        let map = request.headers_mut();
        map.insert(USER_AGENT, HeaderValue::from_static(concat!("tarsup/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|_| self.malformed("a header", "no text"))?;
            map.insert(name.clone(), value);
        }
        if let Some(shown) = shown {
            let mut value = HeaderValue::from_str(shown).map_err(|_| RegistryError::Configuration {
                what: format!("the login for {}", self.host),
                why: "it has characters that no header can hold".to_owned(),
            })?;
            value.set_sensitive(true);
            map.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// The head of an answer, as long as something moves.
    async fn send(&self, request: Request<Body>, act: &str, sent: Option<&Arc<AtomicU64>>) -> Result<Answer> {
        let mut answer = std::pin::pin!(self.http.request(request));
        let count = || sent.map_or(0, |sent| sent.load(Ordering::Relaxed));
        let mut before = count();
        loop {
            match tokio::time::timeout(silence(), &mut answer).await {
                Ok(answer) => return answer.map_err(|error| unanswered(&self.host, act, &error)),
                Err(_) if count() == before => return Err(self.silent(act)),
                Err(_) => before = count(),
            }
        }
    }

    /// Nothing moved for too long.
    pub fn silent(&self, act: &str) -> RegistryError {
        RegistryError::Silent { host: self.host.clone(), act: act.to_owned(), seconds: silence().as_secs() }
    }

    /// True for the registry itself: nobody else is shown who asks.
    fn is_own(&self, uri: &Uri) -> bool {
        self.origin.get().is_some_and(|origin| location::same_origin(origin, uri))
    }

    /// What is shown to the registry, and to nobody else.
    async fn authorization(&self, uri: &Uri, scopes: &Scopes) -> Result<Option<String>> {
        if !self.is_own(uri) {
            return Ok(None);
        }
        // Held meanwhile: one token serves all that wait for it.
        let mut access = self.access.lock().await;
        match &mut *access {
            Access::Open => Ok(None),
            Access::Basic => Ok(self.credential().await?.and_then(Credential::basic)),
            Access::Bearer { realm, service, tokens, .. } => {
                if let Some(token) = tokens.get(scopes) {
                    return Ok(Some(format!("Bearer {token}")));
                }
                let token = self.token(realm, service.as_deref(), scopes).await?;
                let header = format!("Bearer {token}");
                tokens.insert(scopes.clone(), token);
                Ok(Some(header))
            }
        }
    }

    /// How many answers tokens have had.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Something was done with this token.
    async fn served(&self, shown: Option<&str>) {
        let Some(token) = shown.and_then(|shown| shown.strip_prefix("Bearer ")) else { return };
        self.accepted.fetch_add(1, Ordering::Relaxed);
        if let Access::Bearer { served, .. } = &mut *self.access.lock().await
            && !served.contains(token)
        {
            served.insert(token.to_owned());
        }
    }

    /// A token may have come to its end, or the registry wants to know who asks only now. True where the token was good
    /// before.
    async fn renew(&self, headers: &HeaderMap, scopes: &Scopes, shown: Option<&str>) -> Result<bool> {
        let challenge = self.challenge(headers)?;
        let origin = self.origin().await?;
        let offered = self.offered(challenge, origin)?;
        let mut access = self.access.lock().await;
        match (&mut *access, offered) {
            (
                Access::Bearer { realm, service, tokens, served },
                Access::Bearer { realm: new, service: of, .. },
            ) => {
                (*realm, *service) = (new, of);
                let shown = shown.and_then(|shown| shown.strip_prefix("Bearer "));
                // Another request may have a new one by now.
                if tokens.get(scopes).is_some_and(|token| shown == Some(token)) {
                    tokens.remove(scopes);
                }
                Ok(shown.is_some_and(|shown| served.contains(shown)))
            }
            (access, offered) => {
                *access = offered;
                Ok(false)
            }
        }
    }

    async fn credential(&self) -> Result<Option<&Credential>> {
        let found = self.credential.get_or_try_init(|| credentials::find(&self.host)).await?;
        Ok(found.as_ref())
    }

    async fn token(&self, realm: &Uri, service: Option<&str>, scopes: &Scopes) -> Result<String> {
        let act = "give a token";
        let credential = self.credential().await?;
        let mut asked: Vec<(&str, &str)> = service.iter().map(|service| ("service", *service)).collect();
        let joined = scopes.join(" ");
        let mut headers = Vec::new();
        let (method, uri, body) = if let Some(Credential::Identity(token)) = credential {
            asked.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "tarsup"),
                ("refresh_token", token.as_str()),
                ("scope", &joined),
            ]);
            headers.push((hyper::header::CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned()));
            (Method::POST, Some(realm.clone()), Bytes::from(location::query(&asked)))
        } else {
            asked.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            (Method::GET, location::with_query(realm, &asked), Bytes::new())
        };
        let uri = uri.ok_or_else(|| self.malformed("the address of its tokens", "no address"))?;
        let shown = credential.and_then(Credential::basic);
        let mut patience = self.patience();
        let answer = loop {
            let body = Full::new(body.clone()).map_err(|never| match never {}).boxed_unsync();
            let request = self.request(&method, &uri, &headers, shown.as_deref(), body)?;
            match self.send(request, act, None).await {
                Ok(answer) if is_transient(answer.status()) => {
                    let after = retry_after(answer.headers());
                    patience.wait(after, self.refusal(answer, act).await).await?;
                }
                Ok(answer) => break answer,
                Err(error @ RegistryError::Lost { .. }) => patience.wait(None, error).await?,
                Err(error) => return Err(error),
            }
        };
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(self.login(credential.is_some()).await),
            _ => return Err(self.refusal(answer, act).await),
        }
        let bytes = self.whole(answer, LARGEST_TOKEN, "a token").await?;
        let document: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|_| self.malformed("a token", "no JSON"))?;
        let token = ["token", "access_token"].iter().find_map(|key| document.get(key)?.as_str());
        let token =
            token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        token.map(ToOwned::to_owned).ok_or_else(|| self.malformed("a token", "there is none in it"))
    }

    async fn login(&self, shown: bool) -> RegistryError {
        let credential = self.credential().await.ok().flatten().filter(|_| shown);
        let user = credential.map(|credential| credential.user().unwrap_or("that login").to_owned());
        RegistryError::Login {
            host: self.host.clone(),
            user,
            server: credentials::server(&self.host).to_owned(),
        }
    }

    /// The registry was shown somebody, or nobody, and still says that it does not know who asks.
    pub async fn unauthorized(&self, shown: bool, act: &str) -> RegistryError {
        let bearer = matches!(*self.access.lock().await, Access::Bearer { .. });
        let user = self.credential().await.ok().flatten().and_then(Credential::user);
        match user {
            // The token was given to this user, so the password is right.
            Some(user) if bearer => RegistryError::Denied {
                host: self.host.clone(),
                who: user.to_owned(),
                act: act.to_owned(),
                said: String::new(),
            },
            _ => self.login(shown).await,
        }
    }

    /// The whole body of an answer, where it is no larger than it may be.
    pub async fn whole(&self, answer: Answer, largest: u64, what: &str) -> Result<Vec<u8>> {
        let too_large = || self.malformed(what, &format!("more than {largest} bytes"));
        if length(answer.headers()).is_some_and(|length| length > largest) {
            return Err(too_large());
        }
        let mut body = answer.into_body();
        let read = async {
            let mut bytes = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.broken(&format!("send {what}"), &error))?;
                if let Ok(data) = frame.into_data() {
                    if bytes.len() as u64 + data.len() as u64 > largest {
                        return Err(too_large());
                    }
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(bytes)
        };
        tokio::time::timeout(silence(), read)
            .await
            .unwrap_or_else(|_| Err(self.silent(&format!("send {what}"))))
    }

    /// A body that ended before its end.
    pub fn broken(&self, act: &str, error: &hyper::Error) -> RegistryError {
        RegistryError::Lost { host: self.host.clone(), act: act.to_owned(), why: error.to_string() }
    }

    /// What a refusal means.
    pub async fn refusal(&self, answer: Answer, act: &str) -> RegistryError {
        let (host, act, status) = (self.host.clone(), act.to_owned(), answer.status());
        let body = self.whole(answer, LARGEST_TOKEN, "an error").await.unwrap_or_default();
        let said = said(&self.without_secrets(body));
        let is_full = matches!(status.as_u16(), 413 | 507) || said.to_ascii_lowercase().contains("quota");
        match status {
            _ if is_full => RegistryError::Full { host, what: format!("this (it was asked to {act})"), said },
            StatusCode::UNAUTHORIZED => self.unauthorized(true, &act).await,
            StatusCode::FORBIDDEN => {
                let user = self.credential().await.ok().flatten().and_then(Credential::user);
                RegistryError::Denied { host, who: user.unwrap_or("anybody").to_owned(), act, said }
            }
            StatusCode::NOT_FOUND => {
                RegistryError::Absent { host, what: format!("such thing (it was asked to {act})"), said }
            }
            _ => RegistryError::Answered { host, status, act, said },
        }
    }

    /// What it says, without what it was shown: a registry, or a proxy before it, may repeat the question.
    fn without_secrets(&self, body: Vec<u8>) -> Vec<u8> {
        let mut secrets =
            self.credential.get().and_then(Option::as_ref).map(Credential::secrets).unwrap_or_default();
        // Whoever asks for a token right now holds them; the one of before is of no use any more.
        if let Ok(access) = self.access.try_lock()
            && let Access::Bearer { tokens, .. } = &*access
        {
            secrets.extend(tokens.values().cloned());
        }
        secrets.retain(|secret| !secret.is_empty());
        if secrets.is_empty() {
            return body;
        }
        let mut text = String::from_utf8_lossy(&body).into_owned();
        for secret in secrets {
            text = text.replace(&secret, "***");
        }
        text.into_bytes()
    }

    /// What it sends is not what it should be.
    pub fn malformed(&self, what: &str, why: &str) -> RegistryError {
        RegistryError::Malformed { host: self.host.clone(), what: what.to_owned(), why: why.to_owned() }
    }
}

/// A request without a body.
pub(super) fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

/// How long an answer says that its body is.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_that_others_use_up_is_no_wrong_password() {
        let mut renewals = Renewals::default();
        assert!((1..=20).all(|accepted| renewals.may_go_on(false, accepted)));
        assert!((0..3).all(|_| renewals.may_go_on(false, 20)), "its registry may have been slow");
        assert!(!renewals.may_go_on(false, 20), "nobody gets on");

        let mut renewals = Renewals::default();
        assert_eq!((0..1000).take_while(|_| renewals.may_go_on(true, 0)).count(), 50, "and it has an end");
    }
}

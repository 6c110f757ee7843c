//! Every RPC of the contract, called by every kind of sender: allowed or refused as the table says.

use std::collections::BTreeSet;

use crate::harness::{Fleet, member};
use hub::access::table::{Answer, Caller, Need, RULES, Reach, Rule};
use hub::access::{Role, Verb};
use prost::Message as _;
use prost::bytes::{Buf, BufMut};
use proto::v1::fleet_admin_client::FleetAdminClient;
use proto::v1::{BindRequest, InviteRequest, LoginRequest, Scope};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Messages as bytes: an empty one is a message of every type.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Ok(Some(bytes.to_vec()))
    }
}

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

/// Every RPC of the contract.
fn contract() -> BTreeSet<String> {
    let files = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let mut paths = BTreeSet::new();
    for file in files.file {
        for service in &file.service {
            for method in &service.method {
                paths.insert(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    paths
}

/// How one shows who one is.
#[derive(Clone)]
enum Proof {
    None,
    Certificate(String, String),
    Session(String),
}

/// One call with an empty message; the first answer.
async fn call(fleet: &Fleet, path: &'static str, proof: Proof) -> Result<(), Status> {
    let addresses = &fleet.running;
    let address = match path.split('/').nth(1) {
        Some("fleet.v1.FleetLink") => addresses.link,
        Some("fleet.v1.FleetEnrol") => addresses.enrol.unwrap(),
        _ => addresses.view,
    };
    let port = address.port();
    let (identity, session) = match proof {
        Proof::None => (None, None),
        Proof::Certificate(cert, key) => (Some((cert, key)), None),
        Proof::Session(session) => (None, Some(session)),
    };
    let refused = |error: tonic::transport::Error| Status::unauthenticated(format!("{error:?}"));
    let channel: Channel = fleet.connect(port, identity).await.map_err(refused)?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(refused)?;
    let mut request = Request::new(tokio_stream::iter(vec![Vec::new()]));
    if let Some(session) = session {
        let value = format!("Bearer {session}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let answer = client.streaming(request, path.parse().unwrap(), Raw).await;
    match answer {
        Ok(stream) => stream.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    }
}

/// What an answer says about the sender's rights.
fn verdict(rule: &Rule, answer: &Result<(), Status>) -> Answer {
    let Err(status) = answer else {
        return Answer::Allowed;
    };
    let text = status.message();
    match status.code() {
        Code::PermissionDenied if text.contains("in the scope of that right") => Answer::InScope,
        // It got as far as the token.
        Code::Unauthenticated if rule.need == Need::Anyone && text.contains("login token") => Answer::Allowed,
        Code::PermissionDenied | Code::Unauthenticated => Answer::Refused,
        // A hub that wants a certificate cuts the connection at the first request.
        Code::Cancelled => Answer::Refused,
        Code::Unknown | Code::Unavailable if text.contains("transport") || text.contains("h2") => {
            Answer::Refused
        }
        _ => Answer::Allowed,
    }
}

fn foreign(uri: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(parameters, key);
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["peer".to_owned()]).unwrap();
    parameters
        .subject_alt_names
        .push(SanType::URI(uri.try_into().unwrap()));
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// A session of a person with these rights on cluster a.
async fn scoped(fleet: &Fleet, rights: &str) -> String {
    let mut admin = FleetAdminClient::new(fleet.view_as("admin/root").await);
    let bind = BindRequest {
        user: "carl".to_owned(),
        rights: rights.to_owned(),
        scope: Some(Scope {
            clusters: vec!["a".to_owned()],
            ..Scope::default()
        }),
        ..BindRequest::default()
    };
    admin.bind(bind).await.unwrap();
    let invite = InviteRequest {
        name: "carl".to_owned(),
        groups: Vec::new(),
    };
    let token = admin.invite(invite).await.unwrap().into_inner().token;
    let port = fleet.running.view.port();
    let mut nobody = FleetAdminClient::new(fleet.connect(port, None).await.unwrap());
    let opened = nobody
        .login(LoginRequest {
            token,
            ..LoginRequest::default()
        })
        .await
        .unwrap();
    opened.into_inner().session
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_answers_every_sender_as_the_table_says() {
    let listed: BTreeSet<String> = RULES.iter().map(|rule| rule.path.to_owned()).collect();
    assert_eq!(
        listed,
        contract(),
        "the table and the contract have the same RPCs"
    );
    let fleet = Fleet::new().await;
    let _spoke = member(&fleet).await;
    let session = scoped(&fleet, "operator").await;
    let certificate = |who: &str| {
        let (cert, key) = fleet.certificate(&format!("spiffe://fleet/{who}"));
        Proof::Certificate(cert, key)
    };
    let nobodies = |uri: &str| {
        let (foreign, expired) = (foreign(uri), fleet.expired(uri));
        vec![
            Proof::None,
            Proof::Certificate(foreign.0, foreign.1),
            Proof::Certificate(expired.0, expired.1),
            Proof::Session("fleet-session-none".to_owned()),
        ]
    };
    let mut wrong = Vec::new();
    for rule in RULES {
        for caller in Caller::ALL {
            let proofs = match caller {
                Caller::Nobody if rule.need == Need::Spoke => nobodies("spiffe://fleet/spoke/a"),
                // A certificate of a foreign authority or an old one ends the handshake, whatever is asked for.
                Caller::Nobody if rule.need == Need::Anyone => vec![Proof::None],
                Caller::Nobody => nobodies("spiffe://fleet/admin/root"),
                Caller::Spoke => vec![certificate("spoke/b")],
                Caller::Stranger => vec![certificate("person/nobody")],
                Caller::Role { scoped: true, .. } => vec![Proof::Session(session.clone())],
                Caller::Role { role, .. } => vec![certificate(&format!("{}/root", role.as_str()))],
            };
            for proof in proofs {
                // It ends the session.
                if rule.path.ends_with("/Logout") && matches!(proof, Proof::Session(_)) {
                    continue;
                }
                let answer = call(&fleet, rule.path, proof).await;
                let fits = match (rule.answer(caller), verdict(rule, &answer), rule.reach) {
                    (Answer::Refused, Answer::InScope, Reach::Everywhere) => true,
                    // An empty request is about nothing: some are refused before the scope is asked, some by it.
                    (Answer::InScope, Answer::Allowed, _) => true,
                    (Answer::InScope, Answer::InScope, Reach::Covered(_)) => true,
                    (wanted, given, _) => wanted == given,
                };
                if !fits {
                    wrong.push(format!("{} by {}: {answer:?}", rule.path, caller.words()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table above takes rights as roles have them; here each verb opens its RPCs alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_verb_opens_its_own_rpcs_and_what_is_to_be_seen() {
    let fleet = Fleet::new().await;
    let session = scoped(&fleet, "approve").await;
    for rule in RULES {
        let Need::Verb(verb) = rule.need else { continue };
        let answer = call(&fleet, rule.path, Proof::Session(session.clone())).await;
        let given = verdict(rule, &answer) != Answer::Refused;
        let has = [Verb::See, Verb::Approve].contains(&verb);
        assert_eq!(given, has, "{}: {answer:?}", rule.path);
    }
    assert!(!Role::Operator.verbs().has(Verb::Administer));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rpc_that_is_not_in_the_table_is_refused() {
    let fleet = Fleet::new().await;
    let (cert, key) = fleet.certificate("spiffe://fleet/admin/root");
    let refused = call(
        &fleet,
        "/fleet.v1.FleetView/Unlisted",
        Proof::Certificate(cert, key),
    )
    .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(
        refused.message().contains("does not know"),
        "{}",
        refused.message()
    );
}

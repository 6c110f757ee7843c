//! Who is told of outcomes: ntfy, mail, webhooks, Slack, and a Pushgateway for figures of backups.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::CrossNamespaceObjectReference;

/// Values that a template of a webhook may name, as in `{{message}}`.
pub const PLACEHOLDERS: [&str; 13] = [
    "id",
    "type",
    "title",
    "message",
    "reason",
    "time",
    "cluster",
    "kind",
    "namespace",
    "name",
    "uid",
    "run",
    "snapshot",
];

/// What the schema says of a URL.
pub const BAD_URL: &str = "write http:// or https:// and a host; user name and password belong into the Secret of \
                           credentialsSecretRef, and link-local addresses (169.254.0.0/16) are not called";
/// What the schema says of a mail server.
pub const BAD_SMTP_SERVER: &str = "smtpServer is a host, or a host and a port: smtp.example.org:587";
/// What the schema says of mail addresses.
pub const BAD_ADDRESS: &str = "write mail addresses such as ops@example.org, with commas between several";
/// What the schema says of mail without the fields that it needs.
pub const MAIL_INCOMPLETE: &str = "email needs smtpServer, from and to, unless enabled is false";
/// What the schema says of a password in plain text.
pub const PLAIN_PASSWORD: &str =
    "a password is not sent without TLS: remove tls: None, or remove credentialsSecretRef";

/// CEL: a URL that may be called.
fn url_rule() -> String {
    r"self.matches('^https?://[^/@\\s\\x00-\\x20]+(/[^\\s\\x00-\\x20]*)?$') && !self.matches('^https?://169\\.254\\.')"
        .to_owned()
}

/// CEL: no placeholder but the known ones. One expression: the API server's estimate of a loop over all placeholders is
/// above its limit.
fn template_rule() -> String {
    let known = PLACEHOLDERS.join("|");
    format!(r"self.matches('^([^{{]|\\{{\\{{\\s*({known})\\s*\\}}\\}}|\\{{[^{{])*\\{{?$')")
}

/// CEL: one mail address or several. One expression, as above.
fn addresses_rule() -> String {
    let one = r"[^@,\\x00-\\x1f]*[^@,\\s]@[^@,\\s]+";
    format!(r"self.matches('^{one}(\\s*,{one})*\\s*$')")
}

/// What the schema says of a template.
fn bad_template() -> String {
    format!(
        "bodyTemplate knows {{{{name}}}} with one of these names: {}",
        PLACEHOLDERS.join(", ")
    )
}

/// A Secret in the namespace of the resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalSecret {
    /// Name of a Secret in the namespace of the resource.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Prometheus Pushgateway. After each run of the backup it gets backup_duration_seconds, backup_start_timestamp,
/// backup_status (1 for Succeeded), backup_snapshot_size_bytes, backup_snapshot_files_total and
/// backup_last_success_timestamp, in the group job, backup and namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushgatewayConfig {
    /// false sends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where the Pushgateway is.
    #[schemars(regex(pattern = "^https?://.*"), length(max = 2048))]
    #[x_kube(validation = Rule::new(url_rule()).message(BAD_URL))]
    pub url: String,
    /// Value of the job label; "backup" unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub job_name: Option<String>,
    /// Secret with `token`, or with `username` and `password`, and where it is needed `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<LocalSecret>,
}

/// An ntfy topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NtfyConfig {
    /// false sends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where the server is.
    #[serde(rename = "serverURL")]
    #[schemars(regex(pattern = "^https?://.*"), length(max = 2048))]
    #[x_kube(validation = Rule::new(url_rule()).message(BAD_URL))]
    pub server_url: String,
    /// What is subscribed to.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]+$')").message("topic takes letters, digits, - and _"))]
    pub topic: String,
    /// Secret in the same namespace with `token`, or with `username` and `password`, and where it is needed `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<CrossNamespaceObjectReference>,
    /// true leaves out what went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_on_failure: Option<bool>,
    /// From 1, the lowest, to 5.
    #[serde(default = "default_priority", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub priority: Option<i32>,
    /// ntfy's tags; a sign for how it went unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub tags: Vec<String>,
}

#[allow(clippy::unnecessary_wraps)]
fn default_priority() -> Option<i32> {
    Some(4)
}

/// How a mail server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MailTls {
    /// TLS from the first byte.
    Implicit,
    /// STARTTLS, which the server has to offer.
    #[serde(rename = "StartTLS")]
    StartTls,
    /// Plain text.
    None,
}

/// Mail through an SMTP server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.enabled) && !self.enabled) || (has(self.smtpServer) && has(self.from) && has(self.to))")
        .message(MAIL_INCOMPLETE),
    validation = Rule::new("!has(self.tls) || self.tls != 'None' || !has(self.credentialsSecretRef)").message(PLAIN_PASSWORD)
)]
pub struct EmailConfig {
    /// false sends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Host and port; port 587 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    #[x_kube(validation = Rule::new(r"self.matches('^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$')").message(BAD_SMTP_SERVER))]
    pub smtp_server: Option<String>,
    /// The sender's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^\\x00-\\x1f]*[^@\\s]@[^@\\s]+$')").message(BAD_ADDRESS))]
    pub from: Option<String>,
    /// One address, or several with commas between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new(addresses_rule()).message(BAD_ADDRESS))]
    pub to: Option<String>,
    /// Subject instead of the notification's title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f]')").message("subject must not hold line breaks"))]
    pub subject: Option<String>,
    /// How the server is spoken to. Unless given: Implicit for port 465, StartTLS with credentials, and without any STARTTLS
    /// where the server offers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<MailTls>,
    /// Secret with `username` and `password`, and where it is needed `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<LocalSecret>,
    /// true leaves out what went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_on_failure: Option<bool>,
}

/// A JSON document by POST, as https://www.standardwebhooks.com describes it: headers webhook-id (the same for each attempt
/// at one notification), webhook-timestamp, and webhook-signature where there is a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookConfig {
    /// false sends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where the document is sent.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new(url_rule()).message(BAD_URL))]
    pub url: String,
    /// Secret with `hmacKey`, the key of the signature (HMAC-SHA256), and where they are needed `token` (Bearer) or `username`
    /// and `password`, and `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<LocalSecret>,
    /// A JSON document with placeholders such as `{"text": "{{title}}: {{message}}"}`; the whole notification unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new(template_rule()).message(bad_template().as_str()))]
    pub body_template: Option<String>,
    /// true leaves out what went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_on_failure: Option<bool>,
}

/// An incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlackConfig {
    /// false sends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Secret with `url`: with it, anybody can post. Where it is needed also `ca.crt`.
    pub credentials_secret_ref: LocalSecret,
    /// Channel, where the webhook lets one choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub channel: Option<String>,
    /// true leaves out what went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_on_failure: Option<bool>,
}

/// Who is told of a backup's outcome. Secrets are read in the namespace of the resource alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushgateway: Option<PushgatewayConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ntfy: Option<NtfyConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackConfig>,
}

/// Who is told of outcomes. Secrets are read in the namespace of the resource alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notifications {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ntfy: Option<NtfyConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackConfig>,
}

impl From<Notifications> for NotificationConfig {
    fn from(of: Notifications) -> NotificationConfig {
        NotificationConfig {
            pushgateway: None,
            ntfy: of.ntfy,
            email: of.email,
            webhook: of.webhook,
            slack: of.slack,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use kube::core::cel::Validator;
    use serde_json::{Value, json};

    use crate::ResticBackup;

    /// What the API server's CEL says of spec.notifications.
    fn refusals(notifications: &Value) -> Vec<String> {
        let crd = serde_json::to_value(ResticBackup::crd()).unwrap();
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let schema = &root["properties"]["spec"]["properties"]["notifications"];
        let refused = Validator::new().validate(schema, notifications, None);
        let texts = refused.map_err(|errors| errors.iter().map(|error| error.message.clone()).collect());
        texts.err().unwrap_or_default()
    }

    #[test]
    fn each_rule_accepts_and_refuses_with_a_sentence() {
        let mail = |to: &str, tls: &str| {
            json!({ "email": { "smtpServer": "s:25", "from": "Fleet <a@b>", "to": to, "tls": tls,
                                                            "credentialsSecretRef": { "name": "s" } } })
        };
        let hook = |url: &str| json!({ "webhook": { "url": url } });
        let template = |text: &str| json!({ "webhook": { "url": "https://h", "bodyTemplate": text } });
        for (notifications, words) in [
            (hook("https://h.example.org:8443/a?b=c"), ""),
            (hook("ftp://h"), "write http"),
            (hook("https://user:password@h/"), "user name and password"),
            (hook("http://169.254.169.254/latest"), "link-local"),
            (template(r#"{"text": "{{title}} {{ message }}"}"#), ""),
            (template(r#"{"text": "{{password}}"}"#), "bodyTemplate knows"),
            (mail("c@d, e@f", "StartTLS"), ""),
            (mail("c@d", "None"), "not sent without TLS"),
            (mail("nobody", "StartTLS"), "write mail addresses"),
            (json!({ "email": { "to": "a@b" } }), "email needs"),
            (json!({ "email": { "enabled": false, "to": "a@b" } }), ""),
            (
                json!({ "ntfy": { "serverURL": "https://n", "topic": "a/b" } }),
                "topic takes",
            ),
        ] {
            let refused = refusals(&notifications);
            if words.is_empty() {
                assert_eq!(refused, Vec::<String>::new(), "{notifications}");
            } else {
                assert!(
                    refused.iter().any(|text| text.contains(words)),
                    "{notifications}: {refused:?}"
                );
            }
        }
    }
}

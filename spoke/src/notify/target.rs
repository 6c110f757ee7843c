//! Whom a notification goes to. Pure.

use crds::notifications::{
    EmailConfig, NotificationConfig, NtfyConfig, PushgatewayConfig, SlackConfig, WebhookConfig,
};

use super::Notification;

/// One receiver.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Pushgateway(PushgatewayConfig),
    Ntfy(NtfyConfig),
    Email(EmailConfig),
    Webhook(WebhookConfig),
    Slack(SlackConfig),
}

impl Target {
    /// Field below spec.notifications, and a label of metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Target::Pushgateway(_) => "pushgateway",
            Target::Ntfy(_) => "ntfy",
            Target::Email(_) => "email",
            Target::Webhook(_) => "webhook",
            Target::Slack(_) => "slack",
        }
    }

    /// Name of its Secret.
    #[must_use]
    pub fn secret(&self) -> Option<&str> {
        let local = match self {
            Target::Pushgateway(config) => config.credentials_secret_ref.as_ref(),
            Target::Email(config) => config.credentials_secret_ref.as_ref(),
            Target::Webhook(config) => config.credentials_secret_ref.as_ref(),
            Target::Slack(config) => Some(&config.credentials_secret_ref),
            Target::Ntfy(config) => return config.credentials_secret_ref.as_ref().map(|s| s.name.as_str()),
        };
        local.map(|secret| secret.name.as_str())
    }

    /// Key of the queue of this receiver: deliveries with the same key go out in order; a slow receiver, or one whose
    /// Secret cannot be used, delays only its own.
    #[must_use]
    pub fn place(&self) -> String {
        let (server, recipient) = match self {
            Target::Pushgateway(config) => (config.url.as_str(), ""),
            Target::Ntfy(config) => (config.server_url.as_str(), config.topic.as_str()),
            Target::Email(config) => (
                config.smtp_server.as_deref().unwrap_or_default(),
                config.to.as_deref().unwrap_or_default(),
            ),
            Target::Webhook(config) => (config.url.as_str(), ""),
            Target::Slack(config) => ("", config.channel.as_deref().unwrap_or_default()),
        };
        let secret = self.secret().unwrap_or_default();
        [self.name(), server, recipient, secret].join("\n")
    }
}

/// Targets of a configuration that want this notification.
pub fn wanted(config: &NotificationConfig, notification: &Notification) -> Vec<Target> {
    let well = notification.change.occasion.is_well();
    let wants = |enabled: Option<bool>, only_on_failure: Option<bool>| {
        enabled != Some(false) && !(well && only_on_failure == Some(true))
    };
    let pushgateway = config.pushgateway.as_ref();
    let pushgateway = pushgateway.filter(|p| wants(p.enabled, None) && notification.change.figures.is_some());
    let ntfy = config.ntfy.as_ref();
    let ntfy = ntfy.filter(|n| wants(n.enabled, n.only_on_failure));
    let email = config.email.as_ref();
    let email = email.filter(|e| wants(e.enabled, e.only_on_failure));
    let webhook = config.webhook.as_ref();
    let webhook = webhook.filter(|w| wants(w.enabled, w.only_on_failure));
    let slack = config.slack.as_ref();
    let slack = slack.filter(|s| wants(s.enabled, s.only_on_failure));
    let targets = [
        pushgateway.cloned().map(Target::Pushgateway),
        ntfy.cloned().map(Target::Ntfy),
        email.cloned().map(Target::Email),
        webhook.cloned().map(Target::Webhook),
        slack.cloned().map(Target::Slack),
    ];
    targets.into_iter().flatten().collect()
}

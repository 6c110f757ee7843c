//! `fleet migrate`: from another tool's resources to ours. What is read becomes a plan by a pure function for each tool; the
//! plan is shown, or written. Nothing in a repository is changed.

pub mod cluster;
mod cron;
mod cron_env;
mod cron_excludes;
mod cron_file;
#[cfg(test)]
mod cron_fixtures;
mod cron_job;
mod cron_keep;
mod cron_pod;
mod cron_run;
mod finish;
#[cfg(test)]
mod fixtures;
mod k8up;
mod k8up_backend;
mod k8up_dump;
mod k8up_job;
mod k8up_keep;
mod k8up_parts;
mod k8up_single;
mod keep;
pub mod original;
mod pause;
pub mod plan;
mod present;
mod render;
mod restic_args;
pub mod secret;
mod select;
mod unread;
mod velero;
mod velero_storage;
mod velero_when;
mod volsync;
mod volsync_keep;
mod volsync_mover;
mod when;
mod words;

use std::collections::BTreeSet;

use serde_json::Value;

use self::cluster::{Cluster, permitted};
use self::plan::Plan;
use self::secret::Secrets;
use crate::arguments::{Cron, Finish, KubeArguments, MigrateCommand, MoveIn, Tool};
use crate::failure::{Failure, code};
use crate::objects::at;
use crate::output::{note, print};

/// Carries a command out.
pub async fn migrate(kube: &KubeArguments, command: &MigrateCommand) -> Result<u8, Failure> {
    match command {
        MigrateCommand::Original(from) => run(kube, from, Tool::Original).await,
        MigrateCommand::K8up(from) => run(kube, from, Tool::K8up).await,
        MigrateCommand::Volsync(from) => run(kube, from, Tool::Volsync).await,
        MigrateCommand::Velero(from) => run(kube, from, Tool::Velero).await,
        MigrateCommand::Cron(cron) if cron.env_file.is_some() => of_file(kube, cron).await,
        MigrateCommand::Cron(cron) => run(kube, &cron.from, Tool::Cron).await,
        MigrateCommand::Finish(finish) => end(kube, finish).await,
    }
}

async fn run(kube: &KubeArguments, from: &MoveIn, tool: Tool) -> Result<u8, Failure> {
    let cluster = Cluster::new(kube, from.namespace.as_deref());
    let (plan, secrets) = read(&cluster, tool, from).await?;
    carry_out(&cluster, &plan, &secrets, from.apply).await
}

/// Reads what the tool has, and plans.
async fn read(cluster: &Cluster, tool: Tool, from: &MoveIn) -> Result<(Plan, Secrets), Failure> {
    Ok(match tool {
        Tool::Original => {
            let [repositories, backups, restores, policies] = original::RESOURCES;
            let found = original::Found {
                repositories: cluster.needed(repositories).await?,
                backups: cluster.needed(backups).await?,
                restores: cluster.needed(restores).await?,
                policies: cluster.needed(policies).await?,
            };
            (original::plan(&found), Secrets::new())
        }
        Tool::K8up => {
            let found = k8up::Found {
                schedules: cluster.needed(k8up::RESOURCE).await?,
                backups: cluster.optional(k8up_single::RESOURCE).await?,
                claims: cluster.needed("persistentvolumeclaims").await?,
                pods: cluster.needed("pods").await?,
                pre_backup_pods: cluster.optional("prebackuppods.k8up.io").await?,
                pod_configs: cluster.optional("podconfigs.k8up.io").await?,
            };
            let plan = k8up::plan(&found, from.running);
            let secrets = cluster.secrets(sources(&plan)).await?;
            (plan, secrets)
        }
        Tool::Volsync => {
            let found = of_volsync(cluster, from.namespace.as_deref()).await?;
            let mut secrets = cluster.secrets(volsync::secrets(&found)).await?;
            let others = volsync::secrets_of_others(&found);
            secrets.extend(cluster.permitted_secrets(others).await?);
            (volsync::plan(&found, &secrets, from.running), secrets)
        }
        Tool::Velero => {
            let found = of_velero(cluster, from.namespace.as_deref()).await?;
            let secrets = cluster.secrets(velero::secrets(&found)).await?;
            (velero::plan(&found, from.running), secrets)
        }
        Tool::Cron => {
            let found = cluster.needed(cron::RESOURCE).await?;
            let secrets = cluster.secrets(cron::secrets(&found)).await?;
            let config_maps = cluster.config_maps(cron::config_maps(&found)).await?;
            let known = cron_env::Known {
                secrets: &secrets,
                config_maps: &config_maps,
            };
            (cron::plan(&found, known, from.running), secrets)
        }
    })
}

/// Sources of all namespaces: those of others may share a repository with those of the one that was chosen.
async fn of_volsync(cluster: &Cluster, namespace: Option<&str>) -> Result<volsync::Found, Failure> {
    let Some(namespace) = namespace else {
        let sources = cluster.needed(volsync::RESOURCE).await?;
        let others = Some(Vec::new());
        return Ok(volsync::Found { sources, others });
    };
    let Some(Some(all)) = permitted(cluster.list_in(volsync::RESOURCE, None).await)? else {
        let sources = cluster.needed(volsync::RESOURCE).await?;
        return Ok(volsync::Found {
            sources,
            others: None,
        });
    };
    let (sources, others) = all.into_iter().partition(|one| at(one).0 == namespace);
    Ok(volsync::Found {
        sources,
        others: Some(others),
    })
}

/// Velero's resources are all in its own namespace: a namespace that was chosen is that of the workload.
async fn of_velero(cluster: &Cluster, namespace: Option<&str>) -> Result<velero::Found, Failure> {
    let missing = || {
        Failure::Usage(format!(
            "the cluster has no {}: is this the right context of kubectl?",
            velero::RESOURCE
        ))
    };
    let all = |resource: &'static str| cluster.list_in(resource, None);
    let mut repositories = all(velero::RESOURCE).await?.ok_or_else(missing)?;
    if let Some(namespace) = namespace {
        repositories.retain(|one| crate::objects::text(one, "/spec/volumeNamespace") == namespace);
    }
    Ok(velero::Found {
        repositories,
        locations: all("backupstoragelocations.velero.io").await?.unwrap_or_default(),
        volumes: all("podvolumebackups.velero.io").await?.unwrap_or_default(),
        schedules: all("schedules.velero.io").await?.unwrap_or_default(),
        claims: cluster.needed("persistentvolumeclaims").await?,
    })
}

/// Secrets that new ones are made of.
fn sources(plan: &Plan) -> Vec<(String, String)> {
    let of = |new: &secret::NewSecret| {
        let names: Vec<_> = new
            .entries
            .values()
            .map(|source| (new.from.clone(), source.secret.clone()))
            .collect();
        names
    };
    let all = plan.secrets.iter().flat_map(of);
    all.filter(|(_, name)| !name.is_empty()).collect()
}

async fn of_file(kube: &KubeArguments, cron: &Cron) -> Result<u8, Failure> {
    let (Some(file), Some(namespace), Some(name)) = (&cron.env_file, &cron.from.namespace, &cron.name) else {
        return Err(Failure::Usage(
            "write --name and --namespace beside --env-file".to_owned(),
        ));
    };
    let content = std::fs::read_to_string(file).map_err(|error| Failure::File {
        path: file.display().to_string(),
        error,
    })?;
    let plan = cron_file::of_file(&content, namespace, name);
    let plan = plan.map_err(|why| Failure::Usage(format!("{}: {why}", file.display())))?;
    carry_out(
        &Cluster::new(kube, Some(namespace)),
        &plan,
        &Secrets::new(),
        cron.from.apply,
    )
    .await
}

/// Shows a plan, or writes it.
async fn carry_out(cluster: &Cluster, plan: &Plan, secrets: &Secrets, apply: bool) -> Result<u8, Failure> {
    if !apply {
        print(&render::manifests(plan));
        note(&render::next(plan, false));
        return Ok(0);
    }
    // All of them, before anything is written.
    let made: Result<Vec<_>, String> = plan.secrets.iter().map(|new| new.manifest(secrets)).collect();
    let made = made.map_err(|why| Failure::Usage(format!("nothing was written: {why}")))?;
    let mut prepared = Vec::new();
    for object in made.iter().chain(&plan.objects) {
        prepared.push(cluster.prepared(object).await?);
    }
    for (object, kept) in &prepared {
        cluster.apply(object).await?;
        note(&format!("wrote {}", render::name(object)));
        kept.iter().for_each(|text| note(text));
    }
    for patch in &plan.patches {
        cluster.patch(patch).await?;
        note(&format!("done: {}", patch.what));
    }
    note(&render::next(plan, true));
    Ok(0)
}

/// Our objects that a migration has made or suspended, and theirs in whose place they are.
async fn seen(cluster: &Cluster, tool: Tool, namespace: Option<&str>) -> Result<finish::Seen, Failure> {
    let [repositories, backups, _, policies] = original::RESOURCES;
    // Velero's repositories are all in its own namespace, and named after those of the workloads.
    let listed = namespace.filter(|_| tool != Tool::Velero);
    let all = |resource: &'static str| async move {
        let missing = || {
            Failure::Usage(format!(
                "the cluster has no {resource}: is this the right context of kubectl?"
            ))
        };
        cluster.list_in(resource, listed).await?.ok_or_else(missing)
    };
    let of = |objects: Vec<Value>| -> Vec<Value> {
        let mine = objects.into_iter().filter(|object| finish::is_of(tool, object));
        let chosen = |object: &Value| match namespace {
            Some(namespace) if tool == Tool::Velero => {
                finish::sources(object).iter().any(|(_, of, _)| *of == namespace)
            }
            _ => true,
        };
        mine.filter(chosen).collect()
    };
    let found = all(repositories).await?;
    let mut seen = finish::Seen {
        // Those of the original are ours already.
        repositories: if tool == Tool::Original { found } else { of(found) },
        backups: of(all(backups).await?),
        policies: of(all(policies).await?),
        ..finish::Seen::default()
    };
    let Some(theirs) = finish::resource(tool) else {
        if tool == Tool::Velero && cluster.list_in(velero::RESOURCE, None).await?.is_some() {
            compare(cluster, tool, namespace, &mut seen).await?;
        }
        return Ok(seen);
    };
    let ours = seen
        .repositories
        .iter()
        .chain(&seen.backups)
        .chain(&seen.policies);
    let named: BTreeSet<(String, String, String)> = ours
        .flat_map(|object| [finish::sources(object), finish::in_part(object)].concat())
        .map(|(resource, namespace, name)| (resource.to_owned(), namespace.to_owned(), name.to_owned()))
        .collect();
    // Of what is done once nothing goes on.
    for (resource, namespace, name) in named.into_iter().filter(|(resource, ..)| resource == theirs) {
        seen.theirs
            .extend(cluster.get(&resource, &namespace, &name).await?);
    }
    // Where the tool was removed nothing of it goes on.
    if cluster.list(theirs).await?.is_some() {
        compare(cluster, tool, namespace, &mut seen).await?;
    }
    Ok(seen)
}

/// What a migration would make now: theirs may have changed since ours was made.
async fn compare(
    cluster: &Cluster,
    tool: Tool,
    namespace: Option<&str>,
    seen: &mut finish::Seen,
) -> Result<(), Failure> {
    let from = MoveIn {
        namespace: namespace.map(str::to_owned),
        apply: false,
        running: false,
    };
    let (plan, _) = read(cluster, tool, &from).await?;
    let is_there = |wanted: &Value| seen.backups.iter().any(|backup| at(backup) == at(wanted));
    let wanted = plan.objects.into_iter();
    seen.missing = wanted
        .filter(|object| object["kind"] == "ResticBackup" && !is_there(object))
        .collect();
    seen.left = plan.in_part;
    Ok(())
}

/// Changes the tools over.
async fn end(kube: &KubeArguments, finish: &Finish) -> Result<u8, Failure> {
    let (cluster, tool) = (Cluster::new(kube, finish.namespace.as_deref()), finish.tool);
    let seen = seen(&cluster, tool, finish.namespace.as_deref()).await?;
    let name = tool.as_str();
    if seen.backups.is_empty() && seen.policies.is_empty() && seen.repositories.is_empty() {
        return Err(Failure::Usage(format!(
            "nothing here was migrated from {name}; fleet migrate {name} --apply does it"
        )));
    }
    let steps = finish::steps(tool, &seen, finish.untried);
    if !steps.blocked.is_empty() {
        return Err(Failure::Usage(steps.refusal(name)));
    }
    for patch in &steps.patches {
        if finish.yes {
            cluster.patch(patch).await?;
        }
        note(&format!(
            "{}{}",
            if finish.yes { "done: " } else { "would " },
            patch.what
        ));
    }
    steps.notes.iter().for_each(|text| note(text));
    match (steps.patches.is_empty(), finish.yes) {
        (true, _) => note("finish has nothing left to do"),
        (_, true) => {}
        (_, false) => {
            note(&format!(
                "nothing was changed; to do it: fleet migrate finish {name} --yes"
            ));
            return Ok(code::FINDING);
        }
    }
    Ok(0)
}

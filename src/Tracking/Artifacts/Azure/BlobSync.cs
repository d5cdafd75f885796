namespace Memopt.Tracking;

/// <summary>Uploads what is only here, and writes into the records of runs where it is then.</summary>
/// <param name="remote">Where it goes.</param>
/// <param name="local">Where it is.</param>
/// <param name="runs">Where the links are, or null.</param>
internal sealed class BlobSync(BlobArtifacts remote, LocalArtifacts local, IRunStore? runs)
{
    private readonly HashSet<string> there = [.. remote.Uploaded()];
    private readonly List<string> done = [];
    private Sent sent = new(0, 0);

    /// <param name="only">As in <see cref="BlobArtifacts.Sync"/>.</param>
    public (IReadOnlyList<string> Hashes, Sent Sent) Run(IReadOnlyList<string>? only)
    {
        foreach (var hash in only ?? [.. local.List().Except(there)])
            Count(hash, remote.Push(hash, repair: only is not null));
        there.UnionWith(done);
        foreach (var upload in local.Notes(remote.Place))
        {
            if ((only?.Contains(upload.Link.Hash) ?? true) && !IsTraining(upload.Run))
                Push(upload);
        }
        LinkAll();
        return (done, sent);
    }

    private void Count(string hash, Sent now)
    {
        if (now.Blocks > 0 || !there.Contains(hash))
            done.Add(hash);
        sent = new(sent.Blocks + now.Blocks, sent.Bytes + now.Bytes);
    }

    /// <summary>A run that trains sends its own.</summary>
    private bool IsTraining(string run) => runs?.Get(run)?.Status == RunStatus.Running;

    /// <summary>Uploads what a training left to be sent, as far as it is still there.</summary>
    private void Push(Upload upload)
    {
        if (!there.Contains(upload.Link.Hash) && upload.There(local))
        {
            Count(upload.Link.Hash, remote.Push(upload));
            there.Add(upload.Link.Hash);
        }
        if (there.Contains(upload.Link.Hash))
            Link(upload.Run, upload.Safe(remote.Place));
        local.Forget(upload);
    }

    /// <summary>Has the links of all runs name the account where it has what they lead to.</summary>
    private void LinkAll()
    {
        foreach (var run in runs?.Find(new RunQuery { Limit = int.MaxValue - 1 }).Runs ?? [])
        {
            foreach (var link in run.Artifacts.Where(link => link.Place is null && there.Contains(link.Hash)))
                Link(run.Start.Id, link with { Place = remote.Place.ToString() });
        }
    }

    private void Link(string run, ArtifactLink link)
    {
        if (runs?.Get(run) is not { Status: not RunStatus.Running })
            return;
        using var writer = runs.Amend(run);
        writer.Link(link);
    }
}

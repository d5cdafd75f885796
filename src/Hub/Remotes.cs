namespace Memopt.Hub;

/// <summary>Finds who serves a source.</summary>
internal sealed class Remotes(HubSettings settings, HubHttp http)
{
    /// <summary>Who serves a model; one that has to be downloaded.</summary>
    public async Task<IRemote> OfAsync(ModelSource source, CancellationToken stop) =>
        source.Kind switch
        {
            SourceKind.HuggingFace => new HuggingFace(source.Name, settings, http),
            SourceKind.ModelScope => new ModelScope(source.Name, settings, http),
            SourceKind.Web => Web(new Uri(source.Name)),
            _ => await AzureAsync(source.Name, stop).ConfigureAwait(false),
        };

    /// <summary>Who serves a data set.</summary>
    public IRemote Of(HubDataSet source) => new HuggingFace(source.Id, settings, http, dataSet: true);

    private WebFolder Web(Uri address) =>
        new(
            address,
            $"web--{address.Host}--{CacheKey.Of(address.GetLeftPart(UriPartial.Path))[..12]}",
            null,
            settings,
            http
        );

    /// <param name="name">account/container/path.</param>
    /// <param name="stop">Gives up the login.</param>
    private async Task<WebFolder> AzureAsync(string name, CancellationToken stop)
    {
        var parts = name.Split('/', 2);
        var container = new UriBuilder($"{settings.Azure.Replace("{account}", parts[0]).TrimEnd('/')}/{parts[1]}");
        Login? login = null;
        if (settings.AzureSas is { Length: > 0 } signature)
            container.Query = signature.TrimStart('?');
        else if (settings.AzureToken is { } token && !settings.Offline)
            login = new(container.Uri, "Authorization", $"Bearer {await token(stop).ConfigureAwait(false)}");
        return new(container.Uri, $"azure--{parts[0]}--{CacheKey.Of(name)[..12]}", login, settings, http);
    }
}

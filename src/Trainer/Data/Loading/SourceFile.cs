using Memopt.Trainer.Sources;

namespace Memopt.Trainer.Data.Loading;

/// <summary>A file as a source reads it: another source may give its columns other names.</summary>
internal sealed record SourceFile(DataSource Source, DataFile File);

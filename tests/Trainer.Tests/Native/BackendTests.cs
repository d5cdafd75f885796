using Memopt.Core;
using Memopt.Trainer.Native;
using TorchSharp;

namespace Memopt.Trainer.Tests.Native;

// Exclusive, as a program that is written here is run: a process that another test starts at that moment would hold it
// open for writing.
[Collection(ExclusiveCollection.Name)]
public sealed class BackendTests : IDisposable
{
    private static readonly bool gpu = Cuda.DeviceCount() > 0;

    private readonly string root = Directory.CreateTempSubdirectory("memopt-backend-").FullName;

    public void Dispose() => Directory.Delete(root, recursive: true);

    [Fact]
    public void Libtorch_is_loaded_once_and_reports_its_version()
    {
        var first = Backend.Load(null, TestBackend.Environment);
        Assert.Same(first, Backend.Load("cpu", TestBackend.Environment with { Libtorch = "/nowhere" }));
        Assert.True(System.Version.TryParse(first.Version.Split('+')[0], out var version), first.Version);
        Assert.Equal(2, version!.Major);
        Assert.Equal("cpu", first.Devices[0]);
        Assert.Single(first.Candidates, candidate => candidate.Chosen);
        Assert.Equal(first.Folder, first.Candidates.Single(candidate => candidate.Chosen).Folder);
    }

    [Fact]
    public void TorchSharp_starts_without_copying_natives_beside_it()
    {
        Assert.Equal(3f, torch.ones(3).sum().item<float>());
        var beside = Path.GetDirectoryName(typeof(torch).Assembly.Location)!;
        Assert.False(Directory.Exists(Path.Combine(beside, "cpu")));
        Assert.Empty(Directory.EnumerateFiles(beside, "*torch_cpu*", SearchOption.AllDirectories));
    }

    [Fact]
    public void Search_order_is_variable_then_project_then_cache()
    {
        var variable = Library("set");
        var project = Package("packages", "libtorch-cpu-linux-x64", "2.10.1");
        var cached = Package("packages", "libtorch-cpu-linux-x64", "2.10.0");
        Restore("work/obj", "libtorch-cpu-linux-x64/2.10.1");
        var candidates = Backend.Search(null, Where("work/deep/below", variable));
        Assert.Equal(
            ["MEMOPT_LIBTORCH", "project's packages", "NuGet's cache"],
            candidates.Select(candidate => candidate.Source)
        );
        Assert.Equal([variable, project, cached], candidates.Select(candidate => candidate.Folder));
        Assert.All(candidates, candidate => Assert.Equal("usable", candidate.Why));
    }

    [Fact]
    public void CUDA_build_in_several_packages_is_assembled()
    {
        foreach (
            var (part, library) in new[]
            {
                ("part1", "torch_cpu"),
                ("part2-primary", "torch_cuda"),
                ("part3", "c10_cuda"),
            }
        )
        {
            var folder = Directory
                .CreateDirectory(
                    Path.Combine(
                        root,
                        "packages",
                        $"libtorch-cuda-12.8-linux-x64-{part}",
                        "2.10.0",
                        "runtimes",
                        Backend.RuntimeId,
                        "native"
                    )
                )
                .FullName;
            if (part != "part3")
                Assert.Null(
                    Backend.Search(null, Where("work")).Single(candidate => candidate.Source == "NuGet's cache").Folder
                ); // not before both that it needs are there
            File.WriteAllText(Path.Combine(folder, Backend.Library(library)), library);
        }
        Restore("work/obj", "libtorch-cuda-12.8-linux-x64/2.10.0");
        for (var again = 0; again < 2; again++)
        {
            var found = Backend
                .Search(null, Where("work"))
                .Single(candidate => candidate.Source == "project's packages")
                .Folder!;
            Assert.Equal(
                ["c10_cuda", "torch_cpu", "torch_cuda"],
                Directory.EnumerateFiles(found).Order().Select(File.ReadAllText)
            );
        }
    }

    [Fact]
    public void Project_with_a_shared_artifacts_folder_is_found()
    {
        var package = Package("packages", "libtorch-cpu-linux-x64", "2.10.0");
        Restore("work/artifacts/obj/App", "libtorch-cpu-linux-x64/2.10.0");
        Assert.Equal(
            package,
            Backend
                .Search(null, Where("work/src/App"))
                .Single(candidate => candidate.Source == "project's packages")
                .Folder
        );
    }

    [Theory]
    [InlineData("libtorch-zz/2.10.0")]
    [InlineData("libtorch-cpu-linux-x64/2.10.0")]
    [InlineData("libtorch-cpu-linux-x64/../../pk")]
    public void Folder_named_by_a_restored_project_is_not_searched(string library)
    {
        foreach (var name in new[] { "libtorch-zz", "libtorch-cpu-linux-x64" })
            Package("work/pk", name, "2.10.0");
        Restore("work/obj", library);
        var file = Path.Combine(root, "work", "obj", "project.assets.json");
        File.WriteAllText(
            file,
            File.ReadAllText(file)[..^2]
                + $$""", "packageFolders": { "pk": {}, "{{Path.Combine(root, "work", "pk")}}": {} } }"""
        );
        Assert.All(Backend.Search(null, Where("work")), candidate => Assert.Null(candidate.Folder));
    }

    [Theory]
    [InlineData("libtorch-zz", "2.10.0")]
    [InlineData("libtorch-cpu-linux-x64-extra", "2.10.0")]
    [InlineData("libtorch-cpu-other-x64", "2.10.0")]
    [InlineData("libtorch-cpu-linux-x64", "2.9.0")]
    [InlineData("libtorch-cpu-linux-x64", "2.10.0-mine")]
    public void Package_without_libtorchs_name_and_version_is_not_used(string name, string version)
    {
        Package("packages", name, version);
        Restore("work/obj", $"{name}/{version}");
        Assert.All(Backend.Search(null, Where("work")), candidate => Assert.Null(candidate.Folder));
    }

    [Fact]
    public void Project_selects_the_version_among_the_users_packages()
    {
        var older = Package("packages", "libtorch-cpu-linux-x64", "2.10.0");
        var newer = Package("packages", "libtorch-cpu-linux-x64", "2.10.1");
        Assert.Equal(
            newer,
            Backend.Search(null, Where("work")).First(candidate => candidate.Folder is not null).Folder
        );
        Restore("work/obj", "libtorch-cpu-linux-x64/2.10.0");
        Assert.Equal(
            older,
            Backend.Search(null, Where("work")).First(candidate => candidate.Folder is not null).Folder
        );
    }

    [Fact]
    public void Folders_above_the_top_of_a_repository_are_not_searched()
    {
        Package("packages", "libtorch-cpu-linux-x64", "2.10.0");
        Restore("obj", "libtorch-cpu-linux-x64/2.10.0");
        Directory.CreateDirectory(Path.Combine(root, "work", ".git"));
        Assert.Null(
            Backend
                .Search(null, Where("work/deep"))
                .Single(candidate => candidate.Source == "project's packages")
                .Folder
        );
    }

    [Fact]
    public void Package_folders_that_are_not_full_paths_are_skipped() =>
        Assert.All(
            Backend.Search(
                null,
                Where("work") with
                {
                    Packages = ["", "packages", Path.Combine(".nuget", "packages")],
                }
            ),
            candidate => Assert.Null(candidate.Folder)
        );

    [Fact]
    public void Linked_libraries_lie_in_a_private_folder_that_holds_nothing_else()
    {
        if (OperatingSystem.IsWindows())
            return; // a folder there has the rights of the profile
        foreach (var (part, library) in new[] { ("part1", "torch_cpu"), ("part2", "torch_cuda") })
            File.WriteAllText(
                Path.Combine(
                    Library($"packages/libtorch-cuda-12.8-linux-x64-{part}/2.10.0/runtimes/{Backend.RuntimeId}/native"),
                    Backend.Library(library)
                ),
                ""
            );
        var folder = Directory.CreateDirectory(Path.Combine(root, "cache", "libtorch", "cuda-12.8-2.10.0")).FullName;
        File.SetUnixFileMode(folder, (UnixFileMode)0b111_111_111);
        File.WriteAllText(Path.Combine(folder, "libnvrtc.so"), "planted");
        Assert.Equal(
            folder,
            Backend.Search(null, Where("work")).Single(candidate => candidate.Source == "NuGet's cache").Folder
        );
        Assert.Equal(
            UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute,
            File.GetUnixFileMode(folder)
        );
        Assert.False(File.Exists(Path.Combine(folder, "libnvrtc.so")));
    }

    [Fact]
    public void Requested_folder_is_the_only_candidate_and_may_be_the_top_of_an_unpacked_libtorch()
    {
        var lib = Library("libtorch/lib");
        var candidate = Assert.Single(Backend.Search(Path.Combine(root, "libtorch"), Where("work", Library("set"))));
        Assert.Equal(("--backend", lib, "usable"), (candidate.Source, candidate.Folder, candidate.Why));
    }

    [Fact]
    public void CUDA_build_is_used_as_the_machine_allows()
    {
        var folder = Library("set", cuda: true);
        Assert.Equal(gpu ? "cuda" : "cpu", Backend.Search(null, Where("work", folder))[0].Kind);
        Assert.Equal(
            ("cpu", "usable"),
            (Backend.Search("cpu", Where("work", folder))[0].Kind, Backend.Search("cpu", Where("work", folder))[0].Why)
        );
        Assert.Equal(
            gpu ? "usable" : "built with CUDA, but no CUDA device answered",
            Backend.Search("cuda", Where("work", folder))[0].Why
        );
    }

    [Fact]
    public void CPU_build_is_refused_where_cuda_is_requested() =>
        Assert.Contains("--backend asks for cuda", Backend.Search("cuda", Where("work", Library("set")))[0].Why);

    [Fact]
    public void Python_is_asked_only_when_nothing_else_is_usable()
    {
        if (OperatingSystem.IsWindows())
            return; // the stand-in below is a shell script
        var lib = Library("site/torch/lib");
        var python = Path.Combine(root, "python");
        File.WriteAllText(python, $"#!/bin/sh\necho {lib}\n");
        File.SetUnixFileMode(python, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);

        var last = Backend.Search(null, Where("work") with { Python = python })[^1];
        Assert.Equal(("python3", lib, "usable"), (last.Source, last.Folder, last.Why));
        Assert.DoesNotContain(
            Backend.Search(null, Where("work", Library("set")) with { Python = python }),
            candidate => candidate.Source == "python3"
        );
    }

    [Theory]
    [InlineData("")]
    [InlineData("[]")]
    [InlineData("{ \"libraries\": {")]
    [InlineData("{ \"libraries\": [1] }")]
    public void Restore_files_that_are_damaged_are_skipped(string content)
    {
        Directory.CreateDirectory(Path.Combine(root, "work", "obj"));
        File.WriteAllText(Path.Combine(root, "work", "obj", "project.assets.json"), content);
        Assert.Null(
            Backend.Search(null, Where("work")).Single(candidate => candidate.Source == "project's packages").Folder
        );
    }

    [Fact]
    public void Search_that_finds_nothing_names_the_places_and_the_command_to_type()
    {
        var fault = Assert.Throws<UserFault>(() => Backend.Find(null, Where("work", Path.Combine(root, "absent"))));
        Assert.Contains("MEMOPT_LIBTORCH", fault.Found);
        Assert.Contains(Path.Combine(root, "packages"), fault.Found);
        Assert.Contains($"dotnet add package libtorch-cpu-{Backend.RuntimeId} --version 2.10.0", fault.Next);
        // A CPU package would not help who asked for a GPU.
        Assert.StartsWith("MEMOPT_LIBTORCH=", Assert.Throws<UserFault>(() => Backend.Find("cuda", Where("work"))).Next);
    }

    [Fact]
    public void Folder_named_twice_is_listed_once_under_the_first()
    {
        Package("packages", "libtorch-cpu-linux-x64", "2.10.0");
        Restore("work/obj", "libtorch-cpu-linux-x64/2.10.0");
        var cache = Backend.Search(null, Where("work")).Single(candidate => candidate.Source == "NuGet's cache");
        Assert.Equal((null, "nothing that is not listed above"), (cache.Folder, cache.Why));
    }

    [Fact]
    public void Version_is_the_librarys_with_the_suffix_that_its_folder_states()
    {
        var lib = Library("site/torch/lib");
        Assert.Equal("2.11.0", Backend.VersionOf(lib, new(2, 11, 0)));
        File.WriteAllText(
            Path.Combine(root, "site", "torch", "version.py"),
            "from typing import Optional\n__version__ = '2.11.0+cu130'\n"
        );
        Assert.Equal("2.11.0+cu130", Backend.VersionOf(lib, new(2, 11, 0)));
        Assert.Equal("2.10.0", Backend.VersionOf(lib, new(2, 10, 0)));
    }

    private BackendEnvironment Where(string project, string? libtorch = null)
    {
        var folder = Path.Combine(root, project);
        Directory.CreateDirectory(folder);
        return new(libtorch, [Path.Combine(root, "packages")], folder, Path.Combine(root, "cache"), Python: null);
    }

    private string Library(string folder, bool cuda = false)
    {
        var path = Path.Combine(root, folder);
        Directory.CreateDirectory(path);
        File.WriteAllText(Path.Combine(path, Backend.Library("torch_cpu")), "");
        if (cuda)
            File.WriteAllText(Path.Combine(path, Backend.Library("torch_cuda")), "");
        return path;
    }

    private string Package(string packages, string name, string version) =>
        Library(Path.Combine(packages, name, version, "runtimes", Backend.RuntimeId, "native"));

    private void Restore(string obj, string library)
    {
        Directory.CreateDirectory(Path.Combine(root, obj));
        File.WriteAllText(
            Path.Combine(root, obj, "project.assets.json"),
            $$"""{ "libraries": { "Other/1.0.0": {}, "{{library}}": {} } }"""
        );
    }
}

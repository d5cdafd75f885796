using System.Reflection;
using Memopt.Trainer.Config;

namespace Memopt.Tests;

public sealed class SurfaceTests
{
    /// <summary>All that a program can reach from the namespace Memopt through our own public types.</summary>
    [Fact]
    public void Public_surface_reaches_no_torch_type()
    {
        var face = typeof(FineTune).Assembly.GetExportedTypes().Where(type => type.Namespace == "Memopt").ToList();
        Assert.Equal(
            [
                "Adapter",
                "Adapters",
                "Chat",
                "ChatTurn",
                "FineTune",
                "FineTuneResult",
                "StepInfo",
                "TextGenerator",
                "TextGeneratorOptions",
            ],
            face.Select(type => type.Name).Order(StringComparer.Ordinal)
        );
        var (seen, left) = (new HashSet<Type>(), new Queue<Type>(face));
        while (left.TryDequeue(out var type))
        {
            if (!seen.Add(type) || type.Assembly.GetName().Name is not ("Memopt.Trainer" or "Memopt.Tracking"))
                continue;
            foreach (var next in Named(type).SelectMany(Parts))
                left.Enqueue(next);
        }
        Assert.Contains(typeof(RunConfig), seen);
        Assert.DoesNotContain(
            seen,
            type => type.Assembly.GetName().Name!.Contains("TorchSharp", StringComparison.Ordinal)
        );
        // The same walk from inside does find some.
        Assert.Contains(
            Named(typeof(Trainer.Models.Decoder)).SelectMany(Parts),
            type => type.Assembly.GetName().Name == "TorchSharp"
        );
    }

    [Fact]
    public void Public_surface_is_documented()
    {
        var documented = File.ReadAllText(Path.ChangeExtension(typeof(FineTune).Assembly.Location, ".xml"));
        var members = typeof(FineTune)
            .Assembly.GetExportedTypes()
            .Where(type => type.Namespace == "Memopt")
            .SelectMany(type =>
                type.GetMembers(
                        BindingFlags.Public | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly
                    )
                    .Where(member =>
                        member is MethodInfo { IsSpecialName: false } or PropertyInfo && !IsOfARecord(member)
                    )
                    .Select(member => $"{type.FullName}.{member.Name}")
            );
        Assert.All(members, member => Assert.Matches($"name=\"[MP]:{member.Replace(".", "\\.")}[\"(]", documented));
        foreach (var type in new[] { typeof(FineTune), typeof(TextGenerator), typeof(Chat) })
            Assert.Matches(
                $"(?s)name=\"T:{type.FullName!.Replace(".", "\\.")}\">(?:(?!</member>).)*<example>",
                documented
            );
    }

    // Parameters of a record are documented at the type; its other members are the compiler's.
    private static bool IsOfARecord(MemberInfo member) =>
        member.DeclaringType!.GetMethod("<Clone>$") is not null
        && (
            member is MethodInfo
            || member
                .DeclaringType.GetConstructors()
                .Any(constructor => constructor.GetParameters().Any(parameter => parameter.Name == member.Name))
        );

    private static IEnumerable<Type> Named(Type type) =>
        type.GetMembers(BindingFlags.Public | BindingFlags.Instance | BindingFlags.Static)
            .SelectMany(member =>
                member switch
                {
                    MethodBase method => method
                        .GetParameters()
                        .Select(parameter => parameter.ParameterType)
                        .Append((method as MethodInfo)?.ReturnType),
                    PropertyInfo property => [property.PropertyType],
                    FieldInfo field => [field.FieldType],
                    EventInfo happening => [happening.EventHandlerType],
                    Type nested => [nested],
                    _ => [],
                }
            )
            .Concat(type.GetInterfaces())
            .Append(type.BaseType)
            .OfType<Type>();

    private static IEnumerable<Type> Parts(Type type) =>
        type.HasElementType ? Parts(type.GetElementType()!)
        : type.IsGenericType ? type.GetGenericArguments().SelectMany(Parts).Append(type)
        : [type];
}

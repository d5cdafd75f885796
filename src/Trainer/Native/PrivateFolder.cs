using Memopt.Core;

namespace Memopt.Trainer.Native;

/// <summary>Folders of the user's cache that hold code: nobody else may write there.</summary>
internal static class PrivateFolder
{
    /// <summary>Makes a folder, and closes it to everybody but the user.</summary>
    /// <exception cref="UserFault">It is another user's.</exception>
    public static void Make(string folder)
    {
        Directory.CreateDirectory(folder);
        if (OperatingSystem.IsWindows())
            return; // inherits the profile's rights
        try
        {
            // Only the owner of a folder can set its mode.
            File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            throw new UserFault(
                $"{folder} is not yours alone, and code is loaded from it.",
                found: e.Message,
                next: "set XDG_CACHE_HOME to a folder of your own, or remove that one"
            );
        }
    }
}

using System.Runtime.ExceptionServices;
using LiteDB;

namespace Memopt.Tracking;

/// <summary>What LiteDB does with a damaged file beyond the exception that a query sees.</summary>
public static class DamagedDatabase
{
    private static int set;

    /// <summary>Keeps the process alive when LiteDB gives up a transaction on a damaged file: the finalizer of the
    /// transaction then throws a <see cref="LiteException"/>, which would end the process. The query's own exception is
    /// reported as ever. For programs, once a process: .NET takes one such handler.
    /// </summary>
    public static void OutliveFinalizers()
    {
        if (Interlocked.Exchange(ref set, 1) == 0)
            ExceptionHandling.SetUnhandledExceptionHandler(fault => fault is LiteException);
    }
}

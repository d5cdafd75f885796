namespace Memopt.Tool.Server.Mlflow;

/// <summary>A request that is answered with an error, under MLflow's name of it.</summary>
internal sealed class MlflowFault(string code, string message) : Exception(message)
{
    public const string Invalid = "INVALID_PARAMETER_VALUE",
        Missing = "RESOURCE_DOES_NOT_EXIST",
        Exists = "RESOURCE_ALREADY_EXISTS",
        Unknown = "ENDPOINT_NOT_FOUND",
        Conflict = "RESOURCE_CONFLICT",
        State = "INVALID_STATE",
        Internal = "INTERNAL_ERROR";

    public string Code { get; } = code;

    public int Status =>
        Code switch
        {
            Missing or Unknown => 404,
            Conflict => 409,
            State or Internal => 500,
            _ => 400,
        };
}

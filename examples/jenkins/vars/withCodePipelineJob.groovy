/**
 * Does the work of a CodePipeline job: fetches its inputs, runs the block in the job's directory,
 * pushes its outputs, and reports what became of it. An exception, a time-out, an abort and a build
 * that is no longer a success are reported as a failure, and nothing is pushed. Where cpstage itself
 * has failed, CodePipeline is told the type of its failure; all else is JobFailed.
 *
 * @param job jobId (else CPSTAGE_JOB_ID); workspace (else a directory of this build, which is
 *     removed); fetch and push: lists with more options of these commands
 */
void call(Map job = [:], Closure body) {
    String place = ''
    dir(job.workspace ?: "codepipeline-${env.BUILD_NUMBER}") {
        place = pwd() // in full: the steps of the block may go elsewhere
    }
    List<String> variables = ["CPSTAGE_WORKSPACE=${place}"]
    if (job.jobId) {
        variables << "CPSTAGE_JOB_ID=${job.jobId}"
    }
    Map outcome = [failureType: 'JobFailed']
    withEnv(variables) {
        try {
            attempt(outcome, ['fetch'] + (job.fetch ?: []))
            dir(place) {
                body()
                if (currentBuild.currentResult != 'SUCCESS') {
                    error "the build is ${currentBuild.currentResult}"
                }
                attempt(outcome, ['push'] + (job.push ?: []))
            }
            cpstage(['report', 'success', '--execution-id', env.BUILD_TAG, '--summary', env.BUILD_URL])
        } catch (Throwable failure) {
            reportFailure(failure, outcome.failureType)
            throw failure
        } finally {
            if (!job.workspace) {
                dir(place) {
                    deleteDir()
                }
            }
        }
    }
}

private void attempt(Map outcome, List<String> command) {
    int status = cpstage(command, true)
    if (status != 0) {
        outcome.failureType = failureType(command[0], status)
        error "cpstage ${command[0]} ended with exit code ${status}"
    }
}

// The table of exit codes in cpstage's README.
private String failureType(String command, int status) {
    switch (status) {
        case 66: return command == 'fetch' ? 'RevisionUnavailable' : 'ConfigurationError'
        case [2, 73, 78]: return 'ConfigurationError'
        case [69, 70, 74]: return 'SystemUnavailable'
        case 75: return 'RevisionOutOfSync'
        case 77: return 'PermissionError'
        default: return 'JobFailed'
    }
}

private void reportFailure(Throwable failure, String failureType) {
    String message = "${failure.message ?: failure.class.name}, see ${env.BUILD_URL}"
    try {
        cpstage([
            'report', 'failure', '--execution-id', env.BUILD_TAG, '--message', message,
            '--failure-type', failureType,
        ])
    } catch (Throwable other) {
        echo "the failure could not be reported: ${other.message}"
    }
}

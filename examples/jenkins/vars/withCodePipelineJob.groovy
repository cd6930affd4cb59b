/**
 * Does the work of a CodePipeline job: fetches its inputs, runs the block in the job's directory,
 * pushes its outputs, and reports the result. An exception, a time-out, an abort and a build
 * that is no longer a success are reported as a failure, and nothing is pushed. Where cpstage itself
 * has failed, CodePipeline is told the type of its failure; all else is JobFailed.
 *
 * @param job jobId (else CPSTAGE_JOB_ID); workspace (else a directory of this build, which is
 *     removed); credentials: bindings of withCredentials for cpstage, which the block does not see;
 *     fetch and push: lists with more options of these commands
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
            attempt(outcome, job, ['fetch'] + (job.fetch ?: []))
            dir(place) {
                body()
                if (currentBuild.currentResult != 'SUCCESS') {
                    error "the build is ${currentBuild.currentResult}"
                }
                attempt(outcome, job, ['push'] + (job.push ?: []))
            }
            report(job, ['success', '--summary', env.BUILD_URL])
        } catch (Throwable failure) {
            reportFailure(job, failure, outcome.failureType)
            throw failure
        } finally {
            if (!job.workspace) {
                remove(place)
            }
        }
    }
}

private void attempt(Map outcome, Map job, List<String> command) {
    int status = 0
    withOwnCredentials(job) {
        status = cpstage(command, true)
    }
    if (status != 0) {
        outcome.failureType = failureType(command[0], status)
        error "cpstage ${command[0]} ended with exit code ${status}"
    }
}

// The number of the build: URL templates of action types have it as {ExternalExecutionId}.
private void report(Map job, List<String> result) {
    withOwnCredentials(job) {
        cpstage(['report'] + result + ['--execution-id', env.BUILD_NUMBER])
    }
}

private void withOwnCredentials(Map job, Closure body) {
    if (job.credentials) {
        withCredentials(job.credentials) {
            body()
        }
    } else {
        body()
    }
}

// The table of exit codes in docs/reference.md.
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

private void reportFailure(Map job, Throwable failure, String failureType) {
    String message = "${reason(failure)}, see ${env.BUILD_URL}"
    try {
        report(job, ['failure', '--message', message, '--failure-type', failureType])
    } catch (Throwable other) {
        echo "the failure could not be reported: ${other.message}"
    }
}

// Who aborted the build, or that it timed out. In the plugin "Pipeline: Step API" before September 2025
// the message of such an exception is empty; its causes say it, where no sandbox hides them.
private String reason(Throwable failure) {
    if (failure.message) {
        return failure.message
    }
    if (failure.class.simpleName == 'FlowInterruptedException') {
        List<String> causes = []
        for (cause in failure.causes) {
            causes << cause.shortDescription
        }
        return causes.join(', ') ?: 'aborted'
    }
    return failure.class.simpleName
}

// The steps of the block keep their scripts in a directory beside the one that they run in.
private void remove(String place) {
    for (String path : [place, "${place}@tmp"]) {
        dir(path) {
            deleteDir()
        }
    }
}
